"""The port at which the processes of a run meet."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

# Below the range from which systems give ports to outgoing connections (32768 and up on Linux): those come and go by
# the hundred while processes start, and one of them would sit on a port that was free a moment before.
_LOWEST, _HIGHEST = 20_000, 32_000


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a TCP port of this machine that until the end of the body no other call here is given.

    A socket is bound to it, which refuses every later one, and only then allows its address to be used again: who knows
    the port, as torch's store does, can listen on it beside that socket, which never listens.
    """
    with _bound() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        yield holder.getsockname()[1]


def free_port() -> int:
    """Return a TCP port that nothing on this machine listens on; at random, so that two callers hardly get the same."""
    with _bound() as holder:
        return int(holder.getsockname()[1])


def _bound() -> socket.socket:
    draw = random.SystemRandom()
    while True:
        holder = socket.socket()
        try:
            holder.bind(("", draw.randint(_LOWEST, _HIGHEST)))
        except OSError:
            holder.close()
            continue
        return holder
