"""A run's status while it lives: refreshed by a thread, closed with the reason when the run ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from arvis_scale.engine.run_folder import STALE_AFTER_SECONDS, RunFolder, Status


@contextmanager
def recorded_status(folder: RunFolder, status: Status, *, is_first: bool) -> Iterator[None]:
    """Keep `status`, a new attempt's, on disk until the body ends; the first process keeps its heartbeat fresh.

    The body sets `status.step` as it goes and `status.state` when it is done. An exception is recorded as the reason of
    the failure, by whichever process fails first, and raised on.
    """
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(STALE_AFTER_SECONDS / 4):
            folder.write_status(status)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    if is_first:
        folder.write_status(status)
        thread.start()
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        status.state = "preempted" if interrupted else "failed"
        status.reason = "interrupted" if interrupted else " ".join(f"{type(error).__name__}: {error}".split())
        _end(ended, thread)
        # Another process may have failed first; what follows from that must not hide it.
        on_disk = folder.status()
        if on_disk.state != "failed" or on_disk.attempt != status.attempt:
            folder.write_status(status)
        raise
    _end(ended, thread)
    if is_first:
        folder.write_status(status)


def _end(ended: threading.Event, thread: threading.Thread) -> None:
    ended.set()
    if thread.is_alive():
        thread.join()
