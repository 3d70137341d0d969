"""With which status a training process ends, so that scripts and schedulers can tell what to do next.

Numbers above 63 are those of sysexits.h; 1 is any other failure, as Python ends with.
"""

from __future__ import annotations

import errno

COMPLETED = 0
FAILED = 1
# The configuration or a file is wrong: mend it.
BAD_INPUT = 2
# A guard ended the run for what it was trained with or on (EX_DATAERR): look at it, then change it.
STOPPED_BY_GUARD = 65
# No progress within guards.watchdog_minutes (EX_SOFTWARE): look at the stacks, start again.
HANGING = 70
# Out of memory, the device's or the machine's (EX_OSERR): take a smaller micro_batch_size.
OUT_OF_MEMORY = 71
# Saved and stopped by a signal or a time limit (EX_TEMPFAIL): start again as it is.
PREEMPTED = 75

# What the machine or its network did, and not the file that was named.
_OF_THE_MACHINE = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN, errno.EHOSTDOWN)


class GuardError(Exception):
    """A guard ends the run; the message is one line for the user, with the step and what to do."""


def exit_status_of(error: BaseException) -> int:
    """Return the status that a process ends with for `error`."""
    if isinstance(error, GuardError):
        return STOPPED_BY_GUARD
    if _is_out_of_memory(error):
        return OUT_OF_MEMORY
    if isinstance(error, ConnectionError) or (isinstance(error, OSError) and error.errno in _OF_THE_MACHINE):
        return FAILED
    if isinstance(error, (ValueError, OSError)):
        return BAD_INPUT
    return FAILED


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed: torch's own error of a device, or a plain one that says so."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = ("out of memory", "can't allocate memory", "not enough memory", "_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
