"""Jobs on this machine, through submitit's local controller: started, watched, and asked to save before they stop."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import submitit
import torch

from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.run_lock import is_leased
from arvis_scale.launch.cancellation import is_cancelled
from arvis_scale.launch.executors.task import TrainTask
from arvis_scale.launch.studies.expansion import PlannedRun

# How long an interrupted submission waits for its runs to reach a step boundary and save.
SAVE_SECONDS = 60.0
POLL_SECONDS = 0.5
_CONTROLLER = "submitit.local._local"
_logger = logging.getLogger(__name__)


@dataclass(eq=False)
class StartedJob:
    """A started job: submitit's handle, its runs, and the GPUs that it takes."""

    handle: Any
    runs: list[PlannedRun]
    gpus: list[str]

    @property
    def num_processes(self) -> int:
        return self.runs[0].config.parallel.processes


def gpu_names() -> list[str]:
    """Return this machine's GPUs as CUDA_VISIBLE_DEVICES names them; empty without any."""
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else [str(number) for number in range(count)])[:count]


def is_living_job(job_id: str, logs: Path) -> bool:
    """Return whether the job of the study with these `logs` runs on this machine.

    Its number is the process of submitit's controller; it may have been given out again, to another study's too.
    """
    try:
        words = psutil.Process(int(job_id)).cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return _CONTROLLER in words and Path(words[-1]).resolve() == logs.resolve()


@dataclass(frozen=True)
class Place:
    """Where jobs of a study start and what they find there."""

    # submitit's files and the processes' output.
    logs: Path
    # The code that they run (`launch.executors.snapshot`).
    snapshot: Path
    # Environment variables beside those of this process.
    environment: Mapping[str, str]
    # Threads of each process.
    num_threads: int


class _DetachedExecutor(submitit.LocalExecutor):
    """submitit's local executor, but a job is a session of its own, in the snapshot, and sees the given GPUs.

    A terminal sends Ctrl-C to every process of its foreground group. submitit's jobs are among them, and kill their
    processes a second later; in their own session they hear of it from the submitting process, which lets them save.
    """

    def __init__(self, place: Place, gpus: Sequence[str]) -> None:
        super().__init__(place.logs)
        self._place = place
        self._gpus = gpus

    def _submit_command(self, command: str) -> submitit.LocalJob:
        num_processes = self.parameters["tasks_per_node"]
        environment = {
            "OMP_NUM_THREADS": str(self._place.num_threads),
            **os.environ,
            **self._place.environment,
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_NTASKS": str(num_processes),
            "SUBMITIT_LOCAL_TIMEOUT_S": str(60 * self.parameters["timeout_min"]),
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": "30",
            "SUBMITIT_LOCAL_WITH_SHELL": "",
            "SUBMITIT_STDERR_TO_STDOUT": "1",
            "CUDA_VISIBLE_DEVICES": ",".join(self._gpus),
        }
        controller = [sys.executable, "-m", _CONTROLLER, str(self.folder)]
        with open(self.folder / "controllers.log", "a") as log:
            process = subprocess.Popen(
                controller,
                env=environment,
                cwd=self._place.snapshot,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return submitit.LocalJob(self.folder, str(process.pid), tasks=list(range(num_processes)), process=process)


def start_job(
    name: str, task: TrainTask, runs: Sequence[PlannedRun], place: Place, gpus: Sequence[str], timeout_hours: float
) -> StartedJob:
    """Start a job of one or several `runs`, whose processes call `task`."""
    executor = _DetachedExecutor(place, gpus)
    executor.update_parameters(
        name=name,
        tasks_per_node=runs[0].config.parallel.processes,
        timeout_min=math.ceil(timeout_hours * 60),
        stderr_to_stdout=True,
    )
    return StartedJob(executor.submit(task), list(runs), list(gpus))


def cancel_jobs(job_ids: Sequence[str], logs: Path) -> None:
    """Ask jobs that another process started to save and stop; kill those that live after `SAVE_SECONDS`.

    `logs`: see `is_living_job`.
    """
    deadline = time.monotonic() + SAVE_SECONDS
    while (living := [job_id for job_id in job_ids if is_living_job(job_id, logs)]) and time.monotonic() < deadline:
        for job_id in living:
            with suppress(ProcessLookupError):
                os.kill(int(job_id), signal.SIGTERM)
        time.sleep(POLL_SECONDS)
    for job_id in living:
        with suppress(ProcessLookupError):
            os.killpg(int(job_id), signal.SIGKILL)


@contextmanager
def saved_when_interrupted(running: list[StartedJob]) -> Iterator[None]:
    """Let the jobs of `running` save and stop when Ctrl-C or SIGTERM ends the body."""

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
            time.sleep(POLL_SECONDS)
    finally:
        for job in _living(jobs):
            job.handle.cancel()
        while _living(jobs):  # submitit kills a second after the cancellation
            time.sleep(POLL_SECONDS)
        for job in jobs:
            close_job(job, interrupted=True)


def _living(jobs: Sequence[StartedJob]) -> list[StartedJob]:
    return [job for job in jobs if not job.handle.done()]


def close_job(job: StartedJob, *, interrupted: bool = False) -> None:
    """Record what became of runs that a job left without a word (killed, out of memory, never begun).

    Those that were to stop, because the submission was interrupted or they are cancelled, have not failed.
    """
    for run in job.runs:
        folder = RunFolder(run.config.output)
        status = folder.status()
        was_to_stop = interrupted or is_cancelled(folder.path)
        log = job.handle.paths.stdout
        if status.state == "running" and not is_leased(folder):
            if was_to_stop:
                status.state, status.reason = "preempted", f"cancelled before it had saved; see {log}"
            else:
                status.state, status.reason = "failed", f"its process ended without a word; see {log}"
            folder.write_status(status)
        elif status.state == "pending" and not was_to_stop:
            status.state, status.reason = "failed", f"its job ended before it; see {log}"
            folder.write_status(status)
