"""Gives what is missing or failed of a study's runs to its executor."""

from __future__ import annotations

import logging
import os
import shlex
import signal
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from arvis_scale.config import save_config
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.cancellation import take_back
from arvis_scale.launch.executors import executor_of, make_executor
from arvis_scale.launch.executors.packing import pack_jobs
from arvis_scale.launch.executors.snapshot import take_snapshot
from arvis_scale.launch.locks import held, holder
from arvis_scale.launch.run_checks import check_runs
from arvis_scale.launch.studies.budget import predicted_hours
from arvis_scale.launch.studies.expansion import PlannedRun
from arvis_scale.launch.studies.study import Study, save_study
from arvis_scale.launch.sweep_file import SWEEP_NAME, Budget, Sweep, SweepRun, TuneRule, read_sweep, write_sweep

LOCK_NAME = ".lock"
# Run folders are written at once by so many threads, which wait for the disk and not for each other.
_NUM_WRITERS = 8
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Submission:
    """What a submission came to."""

    # The job of every run that it started, by the run's name, and the job that writes the report afterwards, if any.
    jobs: dict[str, str]
    report_job: str | None
    # Runs left to living processes or jobs, by name.
    left: list[str]
    # Runs that have not completed, by name, when it returned.
    unfinished: list[str]
    # Whether it waited for its jobs.
    waited: bool


def submit(study: Study, command: Sequence[str], only: Collection[str] | None = None) -> Submission:
    """Check every run, write the study folder, start what is to be started; local and debug runs are waited for.

    `only`: names of the runs that may be started; None: all.
    Raises `ValueError` before anything is written when one of the runs could not be trained or its executor would not
    take it, and when another process is submitting the study.
    """
    executor = executor_of(study)
    executor.check(study)
    predicted = predicted_hours(study)
    check_runs(study)
    with held(study.output / LOCK_NAME) as is_alone:
        if not is_alone:
            raise ValueError(
                f"{study.output}: another `sweep submit` is at work, the {len(_unfinished(study))} unfinished runs are "
                f"left to it; wait, or stop it with Ctrl-C"
            )
        save_study(study)
        to_start, left = runs_to_start(study)
        to_start = [run for run in to_start if only is None or run.config.name in only]
        if left:
            _logger.info("%d of %d runs are left to an earlier submission's living jobs", len(left), len(study.runs))
        prepare_runs(to_start)
        snapshot = take_snapshot(study.output)
        notes = _SweepNotes(study, command, snapshot, predicted)
        slots = study.launch.max_parallel or 1
        jobs = pack_jobs(to_start, study.launch.runs_per_job, num_slots=slots)
        executor.run(study, snapshot, jobs, notes)
    left_names = [run.config.name for run in left]
    return Submission(notes.jobs, notes.report_job, left_names, _unfinished(study), executor.waits)


def stop_submission(study_folder: Path) -> None:
    """Stop the process that submits the study, if there is one, as Ctrl-C does.

    Its jobs get time to save; it has ended when its lock is free. Raises `ValueError` for one of another machine.
    """
    submitting = holder(study_folder / LOCK_NAME)
    if submitting is None:
        return
    if not submitting.is_here:
        raise ValueError(
            f"{study_folder}: process {submitting.process} of {submitting.host} is submitting this study; stop it "
            f"there, or wait"
        )
    os.kill(submitting.process, signal.SIGTERM)


def runs_to_start(study: Study) -> tuple[list[PlannedRun], list[PlannedRun]]:
    """Return the runs that nobody works on, and those that a living process or job has yet to finish.

    A job that an earlier submission started outlives it; which run has which is in sweep.json. Raises `ValueError` for
    living jobs of runs that the study has no more: nothing would know of them.
    """
    living = _runs_of_living_jobs(study.output)
    _refuse_orphans(study, living)
    to_start: list[PlannedRun] = []
    left: list[PlannedRun] = []
    for run in study.runs:
        status = RunFolder(run.config.output).status()
        if status.state == "completed":
            continue
        # A preempted run's job is requeued and goes on with it, and a failed one's may try it again.
        (left if status.is_alive or run.config.name in living else to_start).append(run)
    return to_start, left


def _refuse_orphans(study: Study, living: Collection[str]) -> None:
    gone = sorted(set(living) - {run.config.name for run in study.runs})
    at_work = [name for name in gone if RunFolder(study.output / "runs" / name).status().state != "completed"]
    if at_work:
        raise ValueError(
            f"{study.output}: {len(at_work)} runs that are no longer in the study have living jobs: {at_work[0]}, ...; "
            f"end them first with `arvis-scale sweep cancel`, or put them back into the file"
        )


def _runs_of_living_jobs(study_folder: Path) -> set[str]:
    if not (study_folder / SWEEP_NAME).exists():
        return set()
    sweep = read_sweep(study_folder)
    if not sweep.jobs:
        return set()
    living = make_executor(sweep.executor, sweep.cluster, study_folder).living(set(sweep.jobs.values()))
    return {name for name, job in sweep.jobs.items() if job in living}


def prepare_runs(runs: Sequence[PlannedRun]) -> None:
    """Write the folders of runs that are to be started; what takes the time is the disk."""
    with ThreadPoolExecutor(_NUM_WRITERS) as writers:
        list(writers.map(_prepare, runs))


def _prepare(run: PlannedRun) -> None:
    folder = RunFolder(run.config.output)
    take_back(folder.path)
    save_config(run.config, folder.config)
    folder.write_status(folder.status().pending(run.config.num_steps))


def _unfinished(study: Study) -> list[str]:
    return [run.config.name for run in study.runs if RunFolder(run.config.output).status().state != "completed"]


class _SweepNotes:
    """sweep.json while a submission works: the study's runs with their jobs, and the commands that submitted it."""

    def __init__(self, study: Study, command: Sequence[str], snapshot: Path, predicted: float | None) -> None:
        # Those of this submission alone.
        self.jobs: dict[str, str] = {}
        self.report_job: str | None = None
        self._folder = study.output
        before = read_sweep(study.output) if (study.output / SWEEP_NAME).exists() else Sweep(study.name)
        line = shlex.join(command)
        self._sweep = Sweep(
            study=study.name,
            executor=study.launch.executor,
            cluster=study.saved_cluster,
            commands=before.commands if line in before.commands else (*before.commands, line),
            tune=TuneRule(study.tuned) if study.tuned else None,
            budget=Budget(study.budget.device_hours, predicted),
            snapshot=snapshot.relative_to(study.output).as_posix(),
            report_job=before.report_job,
            token_jobs=before.token_jobs,
            runs=tuple(
                SweepRun(run.config.name, run.kind, before.jobs.get(run.config.name), run.cell) for run in study.runs
            ),
        )
        self._write()

    def runs(self, jobs: Mapping[str, str]) -> None:
        """See `Notes.runs`."""
        self.jobs.update(jobs)
        self._sweep = self._sweep.with_jobs(jobs)
        self._write()

    def tokens(self, folder: str, job: str) -> None:
        """See `Notes.tokens`."""
        self._sweep = replace(self._sweep, token_jobs={**self._sweep.token_jobs, folder: job})
        self._write()

    def report(self, job: str) -> None:
        """See `Notes.report`."""
        self.report_job = job
        self._sweep = replace(self._sweep, report_job=job)
        self._write()

    def _write(self) -> None:
        write_sweep(self._folder, self._sweep)
