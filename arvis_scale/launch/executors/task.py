"""What the processes of a submitted job call: the submitted code, in the directory that the command was given in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arvis_scale.launch.jobs.job import JobRun, run_job
from arvis_scale.launch.studies.expansion import PlannedRun
from arvis_scale.launch.studies.study import Study


@dataclass(frozen=True)
class TrainTask:
    """The runs of one job, one after the other.

    The job's Python starts in the snapshot, so that it imports from there, and goes on in `directory`, which the
    relative paths of the runs' configurations mean.
    """

    directory: str
    runs: tuple[JobRun, ...]
    # See `LaunchConfig.max_attempts`.
    max_attempts: int

    def __call__(self) -> list[str]:
        """Do the runs and return their final states."""
        os.chdir(self.directory)
        return run_job(list(self.runs), self.max_attempts)


def is_report_missing(study: Study) -> bool:
    """Return whether the study wants a report and has none, or one that is older than a run's result."""
    if not study.launch.report:
        return False
    report = study.output / "report.html"
    results = [path.stat().st_mtime for path in study.output.glob("runs/*/result.json")]
    return not report.exists() or report.stat().st_mtime < max(results, default=0.0)


def train_task(study: Study, job: Sequence[PlannedRun]) -> TrainTask:
    """Return what the processes of `job` call, submitted from here."""
    runs = tuple(JobRun(run.kind, run.config.output) for run in job)
    return TrainTask(str(Path.cwd()), runs, study.launch.max_attempts)


@dataclass(frozen=True)
class ReportTask:
    """Collect, fit, plot and report what the runs of a study gave: its last job."""

    directory: str
    study_folder: str

    def __call__(self) -> str:
        """Write the report and return its path."""
        from scaling_studies import commands

        os.chdir(self.directory)
        folder = Path(self.study_folder)
        commands.collect(folder)
        commands.fit(folder)
        commands.plot(folder)
        return str(commands.report(folder))
