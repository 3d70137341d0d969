"""One task's process that trains: started, told to stop, ended when it hangs, and its death recorded."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import arvis_scale
from arvis_scale.engine import batch_job
from arvis_scale.engine.checkpointing.files import newest_step
from arvis_scale.engine.exit_status import FAILED, OUT_OF_MEMORY
from arvis_scale.engine.preemption import SIGNALS, PreemptionFlag
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.launch.jobs.meeting import POLL_SECONDS, Order, Task

# After one process of a group has failed, the others get so long to notice.
GRACE_SECONDS = 30.0
_LOOK_SECONDS = 2.0
# Characters of what another process says of the same failure: a consequence, and often long.
_MOST_SEEN = 160


def train_watched(task: Task, number: int, order: Order, stop: PreemptionFlag) -> None:
    """Start the process that does the runs of order `number` and wait for its end; `stop` is passed on to it."""
    folders = [RunFolder(path) for _, path in order.runs]
    process = _start(task, order)
    try:
        was_ended = _watch(task, number, process, folders, stop)
    finally:
        process.kill()
        process.wait()
    was_told = stop.raised_by is not None and -process.returncode in SIGNALS
    if not was_ended and not was_told and process.returncode != 0:
        record_death(folders, task.rank, process.returncode)
    task.report(number)


def _start(task: Task, order: Order) -> subprocess.Popen[bytes]:
    environment = task.environment(order)
    # Started where this process's code lies, which `-m` imports from first, it goes on where this process is.
    code = Path(arvis_scale.__file__).resolve().parents[1]
    words = [str(Path.cwd()), *(word for run in order.runs for word in run)]
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "arvis_scale.launch.jobs.worker", *words], env=environment, cwd=code
    )


def _watch(
    task: Task, number: int, process: subprocess.Popen[bytes], folders: Sequence[RunFolder], stop: PreemptionFlag
) -> bool:
    """Wait for the end of `process`; return whether it had to be ended, as it waited for another that failed."""
    looked, failed_at = time.monotonic(), None
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        if time.monotonic() - looked < _LOOK_SECONDS:
            continue
        looked = time.monotonic()
        if stop.raised_by:
            # Again and again: between its start and its first step, and between two runs, nobody may listen.
            process.send_signal(signal.Signals[stop.raised_by])
        if failed_at is None and task.num_tasks > 1:
            others_gave_up = task.has(number + 1) or any(folder.status().state == "failed" for folder in folders)
            failed_at = looked if others_gave_up else None
        if failed_at is not None and looked - failed_at > GRACE_SECONDS:
            return True
    return False


def record_death(folders: Sequence[RunFolder], rank: int, code: int) -> None:
    """Record the end of a process that could not do so itself, with the run that it was at.

    `code`: the status that it ended with, or minus the signal that ended it. Another process's account of the same
    failure is a consequence, and follows in the reason.
    """
    statuses = [(folder, folder.status()) for folder in folders]
    if code > 0 and any(status.state in ("failed", "preempted") for _, status in statuses):
        return  # it has recorded why, or another process has
    own = [(folder, status) for folder, status in statuses if status.job == batch_job.job_id()]
    for state in ("running", "failed"):
        for folder, status in own:
            if status.state == state:
                _write_death(folder, status, rank, code)
                return
    for folder, status in statuses:
        if status.state == "pending":
            begun = status.next_attempt(status.num_steps, begun_from=newest_step(folder.checkpoints))
            _write_death(folder, begun, rank, code)
            return


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
    folder.write_status(status)
