"""One task's process that trains: started, told to stop, ended when it hangs or time is up, its death recorded."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import arvis_scale
from arvis_scale.engine import batch_job
from arvis_scale.engine.checkpointing.files import newest_step
from arvis_scale.engine.exit_status import FAILED, OUT_OF_MEMORY, PREEMPTED
from arvis_scale.engine.heartbeat import write_of_attempt, write_unless_failed
from arvis_scale.engine.preemption import SIGNALS, PreemptionFlag
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.launch.jobs.meeting import POLL_SECONDS, Order, Task

# After one process of a group has failed, the others get so long to notice.
GRACE_SECONDS = 30.0
_LOOK_SECONDS = 2.0
# So long before Slurm ends the job a process that has not stopped by itself is ended: after its last step nothing stops
# it. Less than what the process itself spares (`engine.preemption`), and enough to ask for a requeue.
LEAVING_SECONDS = 10.0
# Characters of what another process says of the same failure: a consequence, and often long.
_MOST_SEEN = 160


def train_watched(task: Task, number: int, order: Order, stop: PreemptionFlag) -> None:
    """Start the process that does the runs of order `number` and wait for its end; `stop` is passed on to it."""
    process = _start(task, order)
    try:
        was_ended = _watch(task, number, process, order, stop)
    finally:
        process.kill()
        process.wait()
    was_told = stop.raised_by is not None and -process.returncode in SIGNALS
    if not was_ended and not was_told and process.returncode != 0:
        record_death(order, task.rank, process.returncode)
    task.report(number)


def _start(task: Task, order: Order) -> subprocess.Popen[bytes]:
    environment = task.environment(order)
    # Started where this process's code lies, which `-m` imports from first, it goes on where this process is.
    code = Path(arvis_scale.__file__).resolve().parents[1]
    words = [str(Path.cwd()), *(word for run in order.runs for word in run)]
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "arvis_scale.launch.jobs.worker", *words], env=environment, cwd=code
    )


def _watch(task: Task, number: int, process: subprocess.Popen[bytes], order: Order, stop: PreemptionFlag) -> bool:
    """Wait for the end of `process`; return whether it has to be ended: another failed, or the job's time is over."""
    looked, failed_at = time.monotonic(), None
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        if order.job_ends_at is not None and time.time() > order.job_ends_at - LEAVING_SECONDS:
            if task.is_first:
                _record_end_of_time(order)
            return True
        if time.monotonic() - looked < _LOOK_SECONDS:
            continue
        looked = time.monotonic()
        if stop.raised_by:
            # Again and again: between its start and its first step, and between two runs, nobody may listen.
            process.send_signal(signal.Signals[stop.raised_by])
        if failed_at is None and task.num_tasks > 1:
            others_gave_up = task.has(number + 1) or any(status.state == "failed" for _, status in _own(order))
            failed_at = looked if others_gave_up else None
        if failed_at is not None and looked - failed_at > GRACE_SECONDS:
            return True
    return False


def record_death(order: Order, rank: int, code: int) -> None:
    """Record the end of a process that could not do so itself, with the run that it was at.

    `code`: the status that it ended with, or minus the signal that ended it. Another process's account of the same
    failure is a consequence, and follows in the reason. A run that another start has gone on with is left alone.
    """
    if code > 0 and any(status.state in ("failed", "preempted") for _, status in _own(order)):
        return  # it has recorded why, or another process has
    for folder, status in _first_in(("running", "failed", "pending"), order):
        _write_death(folder, status, rank, code)


def _record_end_of_time(order: Order) -> None:
    """Record the run that a process is at, or was about to begin, as stopped; before the process is ended."""
    for folder, status in _first_in(("running", "pending"), order):
        status.state, status.exit_status = "preempted", PREEMPTED
        status.reason = f"time limit: ended {LEAVING_SECONDS:.0f} s before the job, as it did not stop by itself"
        write_unless_failed(folder, status)


def _first_in(states: Sequence[str], order: Order) -> list[tuple[RunFolder, Status]]:
    """Return the first of the order's own runs that is in the first of `states` that any is in; empty for none."""
    own = list(_own(order))
    return [(folder, status) for state in states for folder, status in own if status.state == state][:1]


def _own(order: Order) -> Iterator[tuple[RunFolder, Status]]:
    """Yield the order's runs that no other start has, each with its status; of one not begun, what it begins with."""
    for (_, path), attempt in zip(order.runs, order.attempts, strict=True):
        folder = RunFolder(path)
        status = folder.status()
        if status.state == "pending" and status.attempt == attempt - 1:
            begun = status.next_attempt(status.num_steps, begun_from=newest_step(folder.checkpoints))
            begun.state = "pending"
            yield folder, begun
        elif status.job == batch_job.job_id() and status.attempt == attempt:
            yield folder, status


def _write_death(folder: RunFolder, status: Status, rank: int, code: int) -> None:
    how = f"ended with status {code} without a word"
    if code < 0:
        # Slurm's own signals end this process too; what ends that one alone is the system, which wants its memory.
        advice = ", out of memory" if code == -signal.SIGKILL else ""
        how = f"was ended by {signal.Signals(-code).name}{advice}"
    seen = f"; another process: {status.reason[:_MOST_SEEN]}" if status.reason else ""
    status.state, status.node = "failed", batch_job.node_name()
    status.exit_status = OUT_OF_MEMORY if code == -signal.SIGKILL else FAILED
    status.reason = f"the process of rank {rank} on {status.node} {how}{seen}"
    write_of_attempt(folder, status)
