"""The port at which the processes of a run meet."""

from __future__ import annotations

import random
import socket

# Below the range from which systems give ports to outgoing connections (32768 and up on Linux): those come and go by
# the hundred while processes start, and one of them would sit on a port that was free a moment before.
_LOWEST, _HIGHEST = 20_000, 32_000


def free_port() -> int:
    """Return a TCP port that nothing on this machine listens on; at random, so that two callers hardly get the same."""
    draw = random.SystemRandom()
    while True:
        port = draw.randint(_LOWEST, _HIGHEST)
        with socket.socket() as listener:
            try:
                listener.bind(("", port))
            except OSError:
                continue
            return port
