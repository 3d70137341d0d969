"""What every executor does with a study's jobs: check, run, tell which still live, cancel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from arvis_scale.launch.studies.expansion import PlannedRun
from arvis_scale.launch.studies.study import Study


class Notes(Protocol):
    """Takes down which jobs an executor has started, as soon as it knows them: what it does next may fail."""

    def runs(self, jobs: Mapping[str, str]) -> None:
        """Note the job that each of some runs was given to, by the runs' names."""
        ...

    def tokens(self, folder: str, job: str) -> None:
        """Note the job that stores the teacher tokens of `folder`."""
        ...

    def report(self, job: str) -> None:
        """Note the job that writes the report."""
        ...


class Executor(Protocol):
    """A way to run jobs; `executor_of` makes the one that a study asks for.

    A job is a list of runs, done one after the other by the same processes (`launch.jobs.job.run_job`).
    """

    # Whether `run` returns when the jobs have ended, and not when they are submitted.
    waits: bool

    def check(self, study: Study) -> None:
        """Raise `ValueError`, in one line, when the study's runs cannot be run this way; nothing is written yet."""
        ...

    def run(self, study: Study, snapshot: Path, jobs: Sequence[Sequence[PlannedRun]], notes: Notes) -> None:
        """Start `jobs` with the code of `snapshot`, each after those of its runs' `after`, and tell `notes` of them.

        Where the study wants a report, it is written when they have ended.
        """
        ...

    def living(self, jobs: Iterable[str]) -> set[str]:
        """Return those of `jobs` that wait or run."""
        ...

    def cancel(self, jobs: Iterable[str]) -> None:
        """End `jobs`, whose runs save first where they can; those that have ended are left alone."""
        ...
