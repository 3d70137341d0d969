"""Cancels runs of a study: their jobs are asked to save and to stop, and what is lost nevertheless is told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from arvis_scale.engine.checkpointing.files import newest_step
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.cancellation import mark_cancelled
from arvis_scale.launch.executors import make_executor
from arvis_scale.launch.executors.executor import Executor
from arvis_scale.launch.locks import is_held
from arvis_scale.launch.named_runs import check_run_names
from arvis_scale.launch.status.study_status import RunState, study_status
from arvis_scale.launch.submit import LOCK_NAME, stop_submission
from arvis_scale.launch.sweep_file import Sweep, read_sweep

# What Slurm's KillWait and a save take, with some to spare.
PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 1.0
_STOPPABLE = ("pending", "running", "preempted", "stale", "lost")


@dataclass(frozen=True)
class Cancelled:
    """What became of a cancelled run."""

    name: str
    # Optimizer steps done, as far as it said, and those that its newest checkpoint holds.
    step: int
    saved_step: int
    # Whether its job still lives: it saves, or does not listen.
    is_living: bool

    @property
    def lost_steps(self) -> int:
        """Steps that have to be done again."""
        return max(0, self.step - self.saved_step)


def cancel_runs(folder: Path, names: Sequence[str] = ()) -> list[Cancelled]:
    """Cancel runs of the study in `folder`, all by default, and wait until their jobs have ended.

    Runs that are completed, failed or cancelled stay as they are. Raises `ValueError` before anything is done when the
    study has no run of a name, when a run's job also holds runs that are not to be cancelled, when another machine
    submits the study, and when Slurm is silent.
    """
    sweep, status = read_sweep(folder), study_status(folder)
    if status.not_asked:
        raise ValueError(f"nothing is cancelled, Slurm did not answer: {status.not_asked}")
    runs = {run.name: run for run in status.runs}
    check_run_names(folder, names, runs)
    chosen = {name: runs[name] for name in names or runs if _can_stop(runs[name])}
    if not chosen:
        return []
    _check_no_job_is_shared(chosen, runs)
    executor = make_executor(sweep.executor, sweep.cluster, folder)
    if not names:
        stop_submission(folder)
    for name in chosen:
        mark_cancelled(folder / "runs" / name)
    jobs = _jobs(sweep, chosen, whole_study=not names)
    executor.cancel(jobs)
    living = _wait(folder, executor, jobs, for_submission=not names)
    return [_ended(folder, run, run.job in living) for run in chosen.values()]


def _can_stop(run: RunState) -> bool:
    return run.state in _STOPPABLE or (run.state == "failed" and bool(run.disagreement))


def _check_no_job_is_shared(chosen: Mapping[str, RunState], runs: Mapping[str, RunState]) -> None:
    jobs = {run.job: run.name for run in chosen.values() if run.job is not None}
    for run in runs.values():
        if run.job in jobs and run.name not in chosen and _can_stop(run):
            raise ValueError(
                f"{jobs[run.job]} shares job {run.job} with {run.name} (launch.runs_per_job), which would stop too; "
                f"name all runs of the job, or none for the whole study"
            )


def _jobs(sweep: Sweep, chosen: Mapping[str, RunState], *, whole_study: bool) -> list[str]:
    jobs = {run.job for run in chosen.values() if run.job is not None}
    if whole_study:
        jobs.update(sweep.token_jobs.values())
        if sweep.report_job is not None:
            jobs.add(sweep.report_job)
    return sorted(jobs)


def _wait(folder: Path, executor: Executor, jobs: Sequence[str], *, for_submission: bool) -> set[str]:
    """Return the jobs that live on when all others, and the submitting process, have ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        living = executor.living(jobs)
        submits = for_submission and is_held(folder / LOCK_NAME)
        if not (living or submits) or time.monotonic() > deadline:
            return living
        time.sleep(_POLL_SECONDS)


def _ended(folder: Path, run: RunState, is_living: bool) -> Cancelled:
    path = RunFolder(folder / "runs" / run.name)
    status = path.status()
    if status.state == "running" and not is_living:
        status.state, status.reason = "preempted", "cancelled before it had saved"
        path.write_status(status)
    return Cancelled(run.name, status.step, newest_step(path.checkpoints), is_living)
