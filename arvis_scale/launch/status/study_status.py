"""The state of a whole study: one line per run, totals, device hours."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arvis_scale.launch.locks import is_held
from arvis_scale.launch.slurm_jobs import JobState, SlurmError, job_states
from arvis_scale.launch.status.run_reports import RunReport, last_logged, read_report, run_reports
from arvis_scale.launch.status.verdict import STATES, JobNews, judge
from arvis_scale.launch.sweep_file import Budget, Sweep, SweepRun, read_sweep

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RunState:
    """One line of `sweep status`. Numbers that are not known are None."""

    name: str
    # One of verdict.STATES.
    state: str
    # How folder and executor disagree; empty where they do not.
    disagreement: str
    step: int
    num_steps: int
    samples_per_second: float | None
    loss: float | None
    # Until its last step, at the speed of its last logged one; of runs under way.
    seconds_left: float | None
    # Times it was started.
    attempts: int
    job: str | None
    # Slurm's word for its job; None without one.
    job_state: str | None
    node: str
    # How its last start ended, in one line; empty where none has.
    reason: str
    # What Slurm says that its job waits for.
    waits_for: str
    # In seconds; None before its first start.
    heartbeat_age: float | None
    # Linear probe.
    accuracy: float | None
    device_hours: float

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it by itself."""
        if self.state in ("preempted", "failed"):  # the one goes on unless it has no job, the other only if it has
            return bool(self.disagreement) == (self.state == "preempted")
        return self.state in ("lost", "unreadable", "cancelled", "completed")


@dataclass(frozen=True)
class StudyStatus:
    """The state of a study's runs, in their order."""

    study: str
    executor: str
    # Seconds since the epoch.
    time: float
    # Why Slurm could not be asked; empty where it was, and where there is nothing to ask.
    not_asked: str
    # Of a local study: whether neither a submission nor a run is alive, so that nothing more happens by itself.
    is_idle: bool
    budget: Budget
    runs: tuple[RunState, ...]

    @property
    def totals(self) -> dict[str, int]:
        """Number of runs per state, those that somebody has to look at first."""
        counts = Counter(run.state for run in self.runs)
        return {state: counts[state] for state in STATES if counts[state]}

    @property
    def disagreements(self) -> list[RunState]:
        """The runs of which folder and Slurm say different things."""
        return [run for run in self.runs if run.disagreement]

    @property
    def device_hours(self) -> float:
        """Spent so far, by all runs in all attempts."""
        return sum(run.device_hours for run in self.runs)

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to any run by itself."""
        return self.is_idle if self.executor != "slurm" else all(run.is_over for run in self.runs)

    def is_run_over(self, name: str, *, is_given_up: bool) -> bool:
        """Whether nothing more happens to the run by itself; unless given up, a local job tries a failed one again."""
        run = next(run for run in self.runs if run.name == name)
        may_retry = run.state == "failed" and self.executor != "slurm" and not self.is_idle and not is_given_up
        return run.is_over and not may_retry

    def to_json(self) -> dict[str, Any]:
        """Return what `sweep status --json` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "study": self.study,
            "executor": self.executor,
            "time": self.time,
            "not_asked": self.not_asked,
            "is_idle": self.is_idle,
            "totals": self.totals,
            "device_hours": {
                "used": self.device_hours,
                "budget": self.budget.device_hours,
                "predicted": self.budget.predicted_device_hours,
            },
            "runs": [vars(run) for run in self.runs],
        }


class StudyWatch:
    """Looks at a study again and again; Slurm is asked at most every `ask_every` seconds, as sites want it."""

    def __init__(self, folder: Path, *, ask_every: float = 30.0) -> None:
        """Raises `ValueError` when `folder` holds no study."""
        read_sweep(folder)
        self._folder = folder
        self._ask_every = ask_every
        # When Slurm was asked last, for which jobs, and what it said; why it did not answer, if so.
        self._asked_at = 0.0
        self._asked: set[str] = set()
        self._jobs: dict[str, JobState] = {}
        self._not_asked = ""

    def look(self) -> StudyStatus:
        """Return the study's state now."""
        sweep = read_sweep(self._folder)
        reports = run_reports(self._folder, [run.name for run in sweep.runs])
        if sweep.executor == "slurm" and time.time() - self._asked_at >= self._ask_every:
            self._ask(sweep, reports)
            reports = self._read_again(sweep, reports)
        runs = tuple(self._state(run, reports[run.name]) for run in sweep.runs)
        # The lock of `launch.submit`.
        works = any(run.state == "running" for run in runs) or is_held(self._folder / ".lock")
        is_idle = sweep.executor != "slurm" and not works
        return StudyStatus(sweep.study, sweep.executor, time.time(), self._not_asked, is_idle, sweep.budget, runs)

    def _ask(self, sweep: Sweep, reports: Mapping[str, RunReport]) -> None:
        """Ask Slurm for the jobs of the runs that are not completed."""
        jobs = {_job_of(run, reports[run.name]) for run in sweep.runs if reports[run.name].state != "completed"}
        self._asked, self._jobs, self._not_asked = {job for job in jobs if job is not None}, {}, ""
        self._asked_at = time.time()
        try:
            self._jobs = job_states(self._asked)
        except SlurmError as error:
            self._asked, self._not_asked = set(), str(error)

    def _read_again(self, sweep: Sweep, reports: dict[str, RunReport]) -> dict[str, RunReport]:
        """Read once more the runs that seem to disagree with Slurm: they may have gone on since they were read."""
        for run in sweep.runs:
            if judge(reports[run.name], self._news(run, reports[run.name])).disagreement:
                reports[run.name] = read_report(self._folder / "runs" / run.name)
        return reports

    def _news(self, run: SweepRun, report: RunReport) -> JobNews | None:
        """Return what Slurm said of the run's job; None where that is unknown, or older than a sign of life."""
        job = _job_of(run, report)
        is_outdated = report.state == "running" and report.heartbeat > self._asked_at
        if is_outdated or job not in self._asked:
            return None
        return JobNews("Slurm", job, self._jobs.get(job))

    def _state(self, run: SweepRun, report: RunReport) -> RunState:
        news = self._news(run, report)
        verdict = judge(report, news)
        job = news.state if news else None
        logged = last_logged(self._folder / "runs" / run.name) if verdict.state == "running" else {}
        seconds_left = (report.num_steps - logged["step"]) * logged["seconds_per_step"] if logged else None
        return RunState(
            name=run.name,
            state=verdict.state,
            disagreement=verdict.disagreement,
            step=logged.get("step", report.step),
            num_steps=report.num_steps,
            samples_per_second=logged.get("images_per_second", report.samples_per_second),
            loss=logged.get("loss", report.loss),
            seconds_left=seconds_left,
            attempts=report.attempt,
            job=news.job if news else run.job,
            job_state=job.state if job else None,
            node=report.node or (job.node if job else ""),
            reason=report.unreadable or report.reason,
            waits_for=job.reason if job is not None and job.is_waiting else "",
            heartbeat_age=report.heartbeat_age if report.attempt else None,
            accuracy=report.accuracy,
            device_hours=report.device_seconds / 3600,
        )


def _job_of(run: SweepRun, report: RunReport) -> str | None:
    """Return the job that has the run: of one that runs, as it says itself, it may be started by hand."""
    return report.job or run.job if report.state == "running" else run.job


def study_status(folder: Path) -> StudyStatus:
    """Return the state of a study's runs, in their order; `ValueError` when the folder holds no study."""
    return StudyWatch(folder).look()
