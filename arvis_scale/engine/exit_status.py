"""With which status a training process ends, so that scripts and schedulers can tell what to do next.

Numbers above 63 are those of sysexits.h; 1 is any other failure, as Python ends with.
"""

from __future__ import annotations

COMPLETED = 0
FAILED = 1
# The configuration or a file is wrong: mend it.
BAD_INPUT = 2
# A guard ended the run for what it was trained with or on (EX_DATAERR): look at it, then change it.
STOPPED_BY_GUARD = 65
# No progress within guards.watchdog_minutes (EX_SOFTWARE): look at the stacks, start again.
HANGING = 70
# Saved and stopped by a signal or a time limit (EX_TEMPFAIL): start again as it is.
PREEMPTED = 75


class GuardError(Exception):
    """A guard ends the run; the message is one line for the user, with the step and what to do."""


def exit_status_of(error: BaseException) -> int:
    """Return the status that a process ends with for `error`."""
    if isinstance(error, GuardError):
        return STOPPED_BY_GUARD
    if isinstance(error, (ValueError, OSError)):
        return BAD_INPUT
    return FAILED
