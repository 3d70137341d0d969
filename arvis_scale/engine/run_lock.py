"""At most one living run per folder, on every file system and over all nodes: a lease that its holder keeps renewing.

Locks of the operating system are not enough on a cluster: many network disks do not carry them to other nodes. A lease
is a file RUN/lease/NUMBER.json whose number was not there before; creating it is the one step that every file system
does for one caller alone. The highest number holds the run. A holder that finds a higher one (it stood still for so
long that it was taken for dead, or Slurm has started its job again elsewhere) ends its process at once; it looks when
it renews, and before it publishes or removes a checkpoint.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from arvis_scale.atomic import write_json
from arvis_scale.engine import batch_job
from arvis_scale.engine.exit_status import FAILED
from arvis_scale.engine.run_folder import STALE_AFTER_SECONDS, RunFolder

if TYPE_CHECKING:  # torch comes with it, which whoever only looks at a lease does not need
    from arvis_scale.engine.distributed import Processes

SCHEMA_VERSION = 1
# Written by the holder so often; clocks of nodes may differ by the rest of the time until it is stale.
_RENEWED_EVERY_SECONDS = STALE_AFTER_SECONDS / 4
_POLL_SECONDS = 0.5
# A process's start is known from the clock, which may have been set since.
_CLOCK_SECONDS = 5.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease, by all that tells whether it still lives."""

    # Host, boot and space of process numbers, so that the number means the same process to whoever compares.
    machine: str
    pid: int
    started: float
    # See `engine.batch_job`.
    job: str
    restart: int

    @classmethod
    def here(cls) -> Holder:
        """Return this process."""
        process = psutil.Process()
        return cls(_machine(), process.pid, process.create_time(), batch_job.job_id(), batch_job.restart())

    def is_of_earlier_start(self) -> bool:
        """Return whether it belongs to an earlier start of this Slurm job.

        It may live: Slurm gives up a node that does not answer, and starts its jobs again while their processes go on.
        """
        return bool(self.job) and self.job == batch_job.job_id() and self.restart < batch_job.restart()

    def is_gone(self) -> bool:
        """Return whether the process is dead for certain: one of this machine that is not there any more."""
        if self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.pid)
            is_another = abs(process.create_time() - self.started) > _CLOCK_SECONDS
            return is_another or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


@dataclass(frozen=True)
class Lease:
    """A file of a lease as it was read."""

    number: int
    # None: claimed this moment, its holder not yet written.
    holder: Holder | None
    # Seconds since the epoch by the holder's clock.
    renewed: float
    is_released: bool = False

    def is_over(self) -> bool:
        """Return whether the run may be taken: released, not renewed for too long, or its holder dead for certain."""
        stale = time.time() - self.renewed > STALE_AFTER_SECONDS
        return self.is_released or stale or (self.holder is not None and self.holder.is_gone())


class HeldLease:
    """The lease of this process's run, as its holder sees it; of the run's other processes it is nothing."""

    def __init__(self, folder: RunFolder, lease: Lease | None) -> None:
        self._folder = folder
        self._lease = lease

    def confirm(self) -> None:
        """Renew the lease, or end this process at once when another has taken it over: nothing more may be written.

        `OSError` when the disk does not say.
        """
        if self._lease is None:
            return
        # Written first: a network disk then looks at the folder anew, and not at what it remembers of it.
        _write(self._folder, replace(self._lease, renewed=time.time()))
        if max(_numbers(self._folder), default=0) > self._lease.number:
            _path(self._folder, self._lease.number).unlink(missing_ok=True)
            _logger.error("%s was taken over by another process, as this one stood still", self._folder.path)
            os._exit(FAILED)


@contextmanager
def exclusive(folder: RunFolder, processes: Processes) -> Iterator[HeldLease]:
    """Hold the run folder for the body, from the first process of the run.

    Waits for a lease that nobody renews to become stale, at most `STALE_AFTER_SECONDS`; takes over that of an earlier
    start of this Slurm job, and waits as long for its holder to notice. Raises `ValueError` on every process when
    another run of the same folder is alive.
    """
    held = _take(folder) if processes.is_first else None
    if processes.any(processes.is_first and held is None):
        raise ValueError(f"{folder.path} is being trained by another process; wait, or choose another output=")
    if held is None:
        yield HeldLease(folder, None)
        return
    with _renewed(folder, held) as lease:
        yield lease


def is_leased(folder: RunFolder) -> bool:
    """Return whether a process holds the run folder that may be alive."""
    lease = _newest(folder)
    return lease is not None and not lease.is_over()


def is_held_by_another_job(folder: RunFolder) -> bool:
    """Return whether a process holds the run folder that may be alive, and is not of an earlier start of this job."""
    lease = _newest(folder)
    is_ours = lease is not None and lease.holder is not None and lease.holder.is_of_earlier_start()
    return lease is not None and not lease.is_over() and not is_ours


def release_dead(folder: RunFolder) -> None:
    """Release the lease of a process of this machine that is gone: others need not wait until it is stale."""
    lease = _newest(folder)
    if lease is not None and not lease.is_released and lease.holder is not None and lease.holder.is_gone():
        _write(folder, replace(lease, is_released=True))


def _take(folder: RunFolder) -> Lease | None:
    """Return a new lease, or None when somebody else has it and lives."""
    seen: Lease | None = None
    while True:
        newest = _newest(folder)
        if newest is None or newest.is_over():
            if (mine := _claim(folder, newest.number + 1 if newest else 1)) is not None:
                return mine
            continue  # somebody was faster: look at theirs
        if newest.holder is not None and newest.holder.is_of_earlier_start():
            if (mine := _claim(folder, newest.number + 1)) is not None:
                _wait_until_noticed(folder, newest)
                return mine
            continue
        if newest.holder is not None and newest.holder.machine == _machine():
            return None
        if seen is not None and newest.holder is not None and newest != seen:
            return None  # renewed, so alive
        seen = newest if newest.holder is not None else None
        time.sleep(_POLL_SECONDS)


def _wait_until_noticed(folder: RunFolder, earlier: Lease) -> None:
    """Wait until a living holder of `earlier` has found that it lost it."""
    seconds = min(earlier.renewed + STALE_AFTER_SECONDS - time.time(), STALE_AFTER_SECONDS)
    _logger.info("%s: %.0f s for what an earlier start of the job may have left running", folder.path, seconds)
    time.sleep(max(0.0, seconds))


def _claim(folder: RunFolder, number: int) -> Lease | None:
    """Create the lease of `number`; None when there is one of that number, or has been a higher one."""
    path = _path(folder, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return None
    lease = Lease(number, Holder.here(), time.time())
    _write(folder, lease)
    if _numbers(folder)[-1] != number:  # it had come and gone, and this was a place left of it
        path.unlink(missing_ok=True)  # whoever is ahead removes it too
        return None
    for earlier in _numbers(folder)[:-1]:
        _path(folder, earlier).unlink(missing_ok=True)
    return lease


@contextmanager
def _renewed(folder: RunFolder, lease: Lease) -> Iterator[HeldLease]:
    ended, held = threading.Event(), HeldLease(folder, lease)

    def renew() -> None:
        while not ended.wait(_RENEWED_EVERY_SECONDS):
            try:
                held.confirm()
            except OSError as error:  # a network disk that hiccups
                _logger.warning("lease of %s not renewed: %s", folder.path, error)

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield held
    finally:
        ended.set()
        thread.join()
        try:
            _write(folder, replace(lease, renewed=time.time(), is_released=True))
        except OSError as error:  # what ended the body matters more; the lease goes stale
            _logger.warning("lease of %s not released: %s", folder.path, error)


def _newest(folder: RunFolder) -> Lease | None:
    while numbers := _numbers(folder):
        path = _path(folder, numbers[-1])
        try:
            text, modified = path.read_text(encoding="utf-8"), path.stat().st_mtime
        except FileNotFoundError:  # it has made room for its successor
            continue
        if not text:
            return Lease(numbers[-1], None, modified)
        values = json.loads(text)
        return Lease(values["number"], Holder(**values["holder"]), values["renewed"], values["is_released"])
    return None


def _write(folder: RunFolder, lease: Lease) -> None:
    write_json(_path(folder, lease.number), {"schema_version": SCHEMA_VERSION, **asdict(lease)})


def _numbers(folder: RunFolder) -> list[int]:
    return sorted(int(path.stem) for path in folder.lease.glob("[0-9]*.json"))


def _path(folder: RunFolder, number: int) -> Path:
    return folder.lease / f"{number:06d}.json"


def _machine() -> str:
    """Return what tells this machine from others, and from itself before it was started again."""
    boot, numbers = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return " ".join(
        [
            socket.gethostname(),
            boot.read_text(encoding="utf-8").strip() if boot.exists() else "",
            str(numbers.readlink()) if numbers.is_symlink() else "",
        ]
    )
