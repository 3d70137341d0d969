"""A run's status while it lives: refreshed by a thread, closed with the reason when the run ends."""

from __future__ import annotations

import errno
import fcntl
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from arvis_scale.engine.exit_status import COMPLETED, PREEMPTED, GuardError, exit_status_of
from arvis_scale.engine.run_folder import STALE_AFTER_SECONDS, RunFolder, Status

_logger = logging.getLogger(__name__)

# What a network disk answers that keeps no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def recorded_status(
    folder: RunFolder, status: Status, *, is_first: bool, interval: float = STALE_AFTER_SECONDS / 4
) -> Iterator[None]:
    """Keep `status`, a new attempt's, on disk until the body ends; the first process refreshes its heartbeat every
    `interval` seconds.

    The body sets `status.step` as it goes and `status.state` when it is done. An exception is recorded as the reason of
    the failure, by whichever process fails first, and raised on.
    """
    ended = threading.Event()
    began, earlier_seconds = time.monotonic(), status.device_seconds

    def count_time() -> None:
        status.device_seconds = earlier_seconds + (time.monotonic() - began) * status.num_devices

    def beat() -> None:
        while not ended.wait(interval):
            count_time()
            try:
                if not write_unless_failed(folder, status):
                    return
            except OSError as error:  # a full disk or a network disk that hiccups must not make a living run look dead
                _logger.warning("status of %s not written: %s", folder.path, error)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    if is_first:
        folder.write_status(status)
        thread.start()
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        status.state = "preempted" if interrupted else "failed"
        status.reason = "interrupted" if interrupted else in_one_line(error)
        status.exit_status = PREEMPTED if interrupted else exit_status_of(error)
        _end(ended, thread)
        count_time()
        write_unless_failed(folder, status)
        raise
    _end(ended, thread)
    count_time()
    status.exit_status = PREEMPTED if status.state == "preempted" else COMPLETED
    if is_first:
        write_of_attempt(folder, status)


def in_one_line(error: BaseException) -> str:
    """Return what an error says, after its kind."""
    kind = "" if isinstance(error, GuardError) else f"{type(error).__name__}: "  # its message says what it is
    return " ".join(f"{kind}{error}".split())


def write_of_attempt(folder: RunFolder, status: Status) -> None:
    """Write `status`, unless a later attempt has begun."""
    with _nobody_else_writes(folder):
        if folder.status().attempt <= status.attempt:
            folder.write_status(status)


def write_unless_failed(folder: RunFolder, status: Status) -> bool:
    """Write `status`, unless the attempt has failed or was stopped already, or a later one has begun.

    What follows the first failure, or the end of the job's time, must not hide why. Returns whether it was written.
    """
    with _nobody_else_writes(folder):
        on_disk = folder.status()
        has_ended = on_disk.state in ("failed", "preempted") and on_disk.attempt == status.attempt
        if on_disk.attempt > status.attempt or has_ended:
            return False
        folder.write_status(status)
        return True


@contextmanager
def _nobody_else_writes(folder: RunFolder) -> Iterator[None]:
    """Keep others from writing the status between a look at it and a write."""
    with open(folder.path / ".status.lock", "a") as lock:
        _lock_where_possible(lock)
        yield


def _lock_where_possible(file: IO[str]) -> None:
    """Lock `file` until it is closed; on a disk without locks a later failure may hide the first."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def _end(ended: threading.Event, thread: threading.Thread) -> None:
    ended.set()
    if thread.is_alive():
        thread.join()
