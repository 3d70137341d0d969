"""What every executor does with a study's jobs: check, run, tell which still live, cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from arvis_scale.launch.studies.expansion import PlannedRun
from arvis_scale.launch.studies.study import Study

# Called with the job that each of some runs was given to, by the runs' names, as soon as an executor knows them.
Started = Callable[[Mapping[str, str]], None]


class Executor(Protocol):
    """A way to run jobs; `executor_of` makes the one that a study asks for.

    A job is a list of runs, done one after the other by the same processes (`launch.jobs.job.run_job`).
    """

    # Whether `run` returns when the jobs have ended, and not when they are submitted.
    waits: bool

    def check(self, study: Study) -> None:
        """Raise `ValueError`, in one line, when the study's runs cannot be run this way; nothing is written yet."""
        ...

    def run(self, study: Study, snapshot: Path, jobs: Sequence[Sequence[PlannedRun]], started: Started) -> str | None:
        """Start `jobs` with the code of `snapshot`, each after those of its runs' `after`; call `started` for all.

        Where the study wants a report, it is written when they have ended. Returns the job that does so, if there is
        one.
        """
        ...

    def living(self, jobs: Iterable[str]) -> set[str]:
        """Return those of `jobs` that wait or run."""
        ...

    def cancel(self, jobs: Iterable[str]) -> None:
        """End `jobs`, whose runs save first where they can; those that have ended are left alone."""
        ...
