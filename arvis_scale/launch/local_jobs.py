"""Jobs on this machine, through submitit's local executor: started, watched, and asked to save before they stop."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import submitit
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from arvis_scale.engine.ports import free_port
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.expansion import PlannedRun
from arvis_scale.launch.job import JobRun, run_job
from arvis_scale.launch.locks import is_held
from arvis_scale.launch.packing import choose_gpus
from arvis_scale.launch.study import Study

# How long an interrupted submission waits for its runs to reach a step boundary and save.
SAVE_SECONDS = 60.0
# After one process of a job has failed, the others get this long to end too.
GRACE_SECONDS = 30.0
_POLL_SECONDS = 0.5
_CONTROLLER = "submitit.local._local"
_logger = logging.getLogger(__name__)


@dataclass(eq=False)
class StartedJob:
    """A started job: submitit's handle, its runs, and the GPUs that it takes."""

    handle: Any
    runs: list[PlannedRun]
    gpus: list[str]
    # When one of its processes was first seen to have failed, on the monotonic clock.
    failed_at: float | None = None

    @property
    def num_processes(self) -> int:
        return self.runs[0].config.parallel.processes

    def hangs(self) -> bool:
        """Return whether one of several processes failed `GRACE_SECONDS` ago: the others may wait for it for ever."""
        if self.num_processes == 1:
            return False
        failed = any(RunFolder(run.config.output).status().state == "failed" for run in self.runs)
        if failed and self.failed_at is None:
            self.failed_at = time.monotonic()
        return self.failed_at is not None and time.monotonic() - self.failed_at > GRACE_SECONDS


def gpu_names() -> list[str]:
    """Return this machine's GPUs as CUDA_VISIBLE_DEVICES names them; empty without any."""
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else [str(number) for number in range(count)])[:count]


def is_living_job(job_id: str) -> bool:
    """Return whether the job runs on this machine: its number is the process of submitit's controller."""
    if Path("/proc/self/cmdline").exists():
        try:
            return _CONTROLLER.encode() in Path("/proc", job_id, "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
    try:
        os.kill(int(job_id), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process, under a number that was given out again
        return False
    return True


def run_locally(study: Study, queue: list[list[PlannedRun]], started: Callable[[StartedJob], None]) -> None:
    """Run the jobs of `queue`, at most `launch.max_parallel` processes at once, and call `started` for each.

    When this process is interrupted (Ctrl-C, SIGTERM), the runs are asked to save, and get `SAVE_SECONDS` to do so.
    """
    queue = list(queue)
    running: list[StartedJob] = []
    runs = [run for job in queue for run in job]
    gpus = gpu_names()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _saved_when_interrupted(running), Progress(*columns) as progress:
        bar = progress.add_task(f"{study.name}: runs", total=len(runs))
        while queue or running:
            free = study.launch.max_parallel - sum(job.num_processes for job in running)
            if queue and queue[0][0].config.parallel.processes <= free:
                job = queue.pop(0)
                chosen = choose_gpus(gpus, [other.gpus for other in running], job[0].config.parallel.processes)
                running.append(_start(study, job, chosen))
                started(running[-1])
                continue
            for hanging in [job for job in running if job.hangs()]:
                hanging.handle.cancel()
                hanging.failed_at = math.inf  # once is enough
            for ended in [job for job in running if job.handle.done()]:
                running.remove(ended)
                _close(ended)
            done = sum(RunFolder(run.config.output).status().state == "completed" for run in runs)
            progress.update(bar, completed=done)
            time.sleep(_POLL_SECONDS)


class _DetachedExecutor(submitit.LocalExecutor):
    """submitit's local executor, but a job is a session of its own and sees the given GPUs.

    A terminal sends Ctrl-C to every process of its foreground group. submitit's jobs are among them, and kill their
    processes a second later; in their own session they hear of it from the submitting process, which lets them save.
    """

    def __init__(self, folder: Path, gpus: Sequence[str], num_threads: int) -> None:
        super().__init__(folder)
        self._gpus = gpus
        self._num_threads = num_threads

    def _submit_command(self, command: str) -> submitit.LocalJob:
        num_processes = self.parameters["tasks_per_node"]
        environment = {
            "OMP_NUM_THREADS": str(self._num_threads),
            **os.environ,
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_NTASKS": str(num_processes),
            "SUBMITIT_LOCAL_TIMEOUT_S": str(60 * self.parameters["timeout_min"]),
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": "30",
            "SUBMITIT_LOCAL_WITH_SHELL": "",
            "SUBMITIT_STDERR_TO_STDOUT": "1",
            # submitit would derive one from the job's number, whoever sits on it.
            "MASTER_PORT": str(free_port()),
            "CUDA_VISIBLE_DEVICES": ",".join(self._gpus),
        }
        controller = [sys.executable, "-m", _CONTROLLER, str(self.folder)]
        with open(self.folder / "controllers.log", "a") as log:
            process = subprocess.Popen(
                controller, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return submitit.LocalJob(self.folder, str(process.pid), tasks=list(range(num_processes)), process=process)


def _start(study: Study, runs: list[PlannedRun], gpus: list[str]) -> StartedJob:
    # Processes share the machine's cores instead of each taking all of them.
    num_threads = max(1, (os.cpu_count() or 1) // study.launch.max_parallel)
    executor = _DetachedExecutor(study.output / "logs", gpus, num_threads)
    executor.update_parameters(
        name=study.name,
        tasks_per_node=runs[0].config.parallel.processes,
        timeout_min=math.ceil(study.launch.timeout_hours * 60),
        stderr_to_stdout=True,
    )
    return StartedJob(executor.submit(run_job, [JobRun(run.kind, run.config.output) for run in runs]), runs, gpus)


@contextmanager
def _saved_when_interrupted(running: list[StartedJob]) -> Iterator[None]:
    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    earlier = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except BaseException:
        if running:
            _stop(running)
        raise
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _stop(jobs: Sequence[StartedJob]) -> None:
    """Ask the jobs to save and stop; cancel what has not after `SAVE_SECONDS`, or at a second interruption."""
    _logger.info(
        "interrupted: the runs save and stop, which may take up to %d s (Ctrl-C again: at once, without saving)",
        SAVE_SECONDS,
    )
    deadline = time.monotonic() + SAVE_SECONDS
    try:
        while (living := _living(jobs)) and time.monotonic() < deadline:
            for job in living:
                # Again and again: while a process starts and between its runs nobody listens. The controller passes
                # the signal on to its processes, which end their run at the next step.
                os.kill(int(job.handle.job_id), signal.SIGTERM)
            time.sleep(_POLL_SECONDS)
    finally:
        for job in _living(jobs):
            job.handle.cancel()
        while _living(jobs):  # submitit kills a second after the cancellation
            time.sleep(_POLL_SECONDS)
        for job in jobs:
            _close(job, interrupted=True)


def _living(jobs: Sequence[StartedJob]) -> list[StartedJob]:
    return [job for job in jobs if not job.handle.done()]


def _close(job: StartedJob, *, interrupted: bool = False) -> None:
    """Record what became of runs that a job left without a word (killed, out of memory, never begun)."""
    for run in job.runs:
        folder = RunFolder(run.config.output)
        status = folder.status()
        log = job.handle.paths.stdout
        if status.state == "running" and not is_held(folder.path / ".lock"):
            if interrupted:
                status.state, status.reason = "preempted", f"cancelled before it had saved; see {log}"
            else:
                status.state, status.reason = "failed", f"its process ended without a word; see {log}"
            folder.write_status(status)
        elif status.state == "pending" and not interrupted:
            status.state, status.reason = "failed", f"its job ended before it; see {log}"
            folder.write_status(status)
