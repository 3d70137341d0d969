"""What a run's state is, given what its folder says and what the executor knows of its job.

The folder says what the run last wrote, which a process that is killed cannot take back; the executor knows whether a
job lives, but not what it does. Where the two disagree, both are said.
"""

from __future__ import annotations

from dataclasses import dataclass

from arvis_scale.launch.slurm_jobs import JobState
from arvis_scale.launch.status.run_reports import RunReport

# What `sweep status` may call a run, in the order in which somebody has to look at it.
# - lost: the folder says pending or running, but no job is at it
# - stale: its job runs, but its heartbeat has stopped
# - cancelled: somebody cancelled it, or its job, before it was done
STATES = ("failed", "lost", "unreadable", "stale", "running", "preempted", "cancelled", "pending", "completed")


@dataclass(frozen=True)
class Verdict:
    """A run's state, and where folder and executor disagree, how."""

    state: str
    disagreement: str = ""


@dataclass(frozen=True)
class JobNews:
    """What the executor said of a run's job."""

    # Who said it: "Slurm" or "this machine".
    source: str
    # The job's number.
    job: str
    # None: the executor knows no such job (any more).
    state: JobState | None

    def __str__(self) -> str:
        """Return e.g. `Slurm says NODE_FAIL of job 12_3 on node2`."""
        if self.state is None:
            return f"{self.source} knows no job {self.job} any more"
        reason = f" ({self.state.reason})" if self.state.reason else ""
        node = f" on {self.state.node}" if self.state.node else ""
        return f"{self.source} says {self.state.state}{reason} of job {self.job}{node}"


def judge(report: RunReport, news: JobNews | None) -> Verdict:
    """Return what a run is doing; `news` is None where it has no job, and where nobody could be asked."""
    if report.unreadable:
        return Verdict("unreadable")
    if report.is_cancelled and report.state in ("pending", "preempted"):
        return Verdict("cancelled")
    if report.state == "running":
        return _judge_running(report, news)
    if report.state in ("pending", "preempted") and news is not None:
        return _judge_waiting(report, news)
    if report.state == "failed" and news is not None and news.state is not None and news.state.is_living:
        return Verdict("failed", f"{news}, which may start it again")
    return Verdict(report.state)


def _judge_waiting(report: RunReport, news: JobNews) -> Verdict:
    if news.state is not None and news.state.is_living:
        return Verdict(report.state)
    if news.state is not None and news.state.state == "CANCELLED":
        return Verdict("cancelled", f"the folder says {report.state}; {news}")
    if report.state == "preempted":
        return Verdict("preempted", f"no job is to go on with it; {news}")
    return Verdict("lost", f"the folder says pending; {news}")


def _judge_running(report: RunReport, news: JobNews | None) -> Verdict:
    silent = f"its last heartbeat is {report.heartbeat_age:.0f} s old"
    if news is None:
        return Verdict("running") if report.is_alive else Verdict("lost", f"the folder says running, but {silent}")
    if news.state is None or not news.state.is_living:
        return Verdict("lost", f"the folder says running, {silent}; {news}")
    if news.state.is_waiting:
        return Verdict("pending", f"the folder says running, {silent}; {news}")
    if not report.is_alive:
        return Verdict("stale", f"{news}, but {silent}")
    return Verdict("running")
