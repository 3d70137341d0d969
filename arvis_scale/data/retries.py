"""Asking a network disk or server again, with growing pauses, when its error may pass."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0

# What NFS, Lustre and the like give while a server restarts or fails over. A missing file or a denied one stays so.
TRANSIENT_ERRNOS = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EAGAIN,
        errno.EREMOTEIO,
        errno.ENOLINK,
        errno.ESHUTDOWN,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
    }
)

# Own generator: the pauses of many workers should differ, and must not move the run's random numbers.
_pauses = random.Random()


def is_transient(error: OSError) -> bool:
    """Return whether a network disk's error may be gone a moment later."""
    return isinstance(error, TimeoutError) or error.errno in TRANSIENT_ERRNOS


def with_retries(
    attempt: Callable[[], Result],
    num_retries: int,
    *,
    may_pass: Callable[[OSError], bool] = is_transient,
    before_retry: Callable[[], None] | None = None,
) -> Result:
    """Return `attempt()`, tried up to `num_retries` times more while it raises an `OSError` that `may_pass`.

    The pauses double from half a second to half a minute, each drawn from the upper half of its range so that many
    workers do not come back together. The last error is raised as it is. `before_retry` runs before each new attempt
    (a stale file has to be opened again).
    """
    for retry in range(num_retries):
        try:
            return attempt()
        except OSError as error:
            if not may_pass(error):
                raise
        pause = min(FIRST_PAUSE_SECONDS * 2**retry, LONGEST_PAUSE_SECONDS)
        time.sleep(pause * _pauses.uniform(0.5, 1.0))
        if before_retry:
            before_retry()
    return attempt()
