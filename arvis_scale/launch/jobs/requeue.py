"""A Slurm job that asks to be put back into the queue, once, where Slurm would not do so itself."""

from __future__ import annotations

import datetime
import logging
import subprocess
import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from arvis_scale.engine import batch_job

# What follows on this command line does not die of the signals that tell a job to stop, unless it asks for them: a
# signal that is ignored stays so in the program that a shell becomes.
DEAF = ("sh", "-c", 'trap "" TERM USR1 USR2; exec "$@"', "sh")
_MISSING_COMMAND = 127  # of a shell
# A controller that is being started again answers after a while; a job keeps its nodes until then.
_PATIENCE_SECONDS = 600.0
_PAUSE_SECONDS = 5.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueuedJob:
    """This job as Slurm's controller sees it."""

    state: str
    restarts: int
    # Seconds since the epoch; None where it has no limit.
    ends_at: float | None


def this_job() -> QueuedJob | None:
    """Return what Slurm says of this job; None when it does not answer."""
    fields = "State:32,RestartCnt:16,EndTime:32"
    asked = _call("squeue", "--noheader", "--states=all", f"--jobs={batch_job.job_id()}", f"--Format={fields}")
    words = asked.stdout.split()
    if asked.returncode != 0 or len(words) != 3:
        return None
    try:
        ends_at = datetime.datetime.fromisoformat(words[2]).timestamp()
    except ValueError:  # N/A
        ends_at = None
    return QueuedJob(words[0], int(words[1]), ends_at)


def requeue_this_job() -> bool:
    """Ask Slurm to start this job again; return whether it answered that it will.

    Not where it is no longer running: then it was cancelled, or Slurm itself has put it back. Called by one task of the
    job when all of its processes have saved. A controller that is away is asked again.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        job = this_job()
        if job is not None and (job.state != "RUNNING" or job.restarts != batch_job.restart()):
            _logger.info("Slurm calls this job %s (restart %d): it is not requeued again", job.state, job.restarts)
            return False
        asked = _call("scontrol", "requeue", batch_job.job_id())
        if asked.returncode == 0:
            _logger.info("job %s goes back into the queue", batch_job.job_id())
            return True
        if asked.returncode == _MISSING_COMMAND:
            _logger.error(
                "job %s is not requeued: scontrol is not on the PATH inside the job; bind Slurm's commands into the "
                "`container` of the profile (docs/clusters.md), and start it again with `arvis-scale sweep resume`",
                batch_job.job_id(),
            )
            return False
        if job is not None or time.monotonic() > deadline:  # with an answer before, this is Slurm's last word
            _logger.error(
                "job %s is not requeued (%s): start it again with `arvis-scale sweep resume`",
                batch_job.job_id(),
                " ".join(asked.stderr.split()),
            )
            return False
        time.sleep(_PAUSE_SECONDS)


def exclude_nodes(jobs: Sequence[str], bad: Sequence[str], formerly: Sequence[str] = (), *, states: str) -> None:
    """Keep those of `jobs` in one of `states` (as squeue takes them) off the `bad` nodes.

    Nodes that they were submitted to stay away from stay excluded; those that were `formerly` bad do not.
    """
    wanted = set(jobs)
    same: dict[str, list[str]] = {}
    for job, listed in _excluded_now(wanted, states):
        if job in wanted:
            excluded = set(_expanded(listed)) - set(formerly) | set(bad)
            same.setdefault(",".join(sorted(excluded)), []).append(job)
    for nodes, chosen in same.items():
        for start in range(0, len(chosen), _JOBS_AT_ONCE):
            some = ",".join(chosen[start : start + _JOBS_AT_ONCE])
            changed = _call("scontrol", "update", f"JobId={some}", f"ExcNodeList={nodes}")
            if changed.returncode != 0:
                _logger.warning("jobs %s are not kept off %s: %s", some, nodes, " ".join(changed.stderr.split()))


def partition_nodes(partition: str) -> list[str]:
    """Return the nodes of a partition that can be had now or later, as far as Slurm knows; none when it is silent."""
    states = "--states=idle,alloc,mix,comp"
    shown = _call("sinfo", "--noheader", "--Node", f"--partition={partition}", states, "--format=%N")
    return sorted(set(shown.stdout.split()))


def _excluded_now(jobs: Set[str], states: str) -> Iterator[tuple[str, str]]:
    """Yield (job, list of nodes it is kept off) for `jobs` in `states`, and for others of the same arrays."""
    # By the numbers of their arrays: the system bounds a command's words, which ten thousand tasks exceed.
    arrays = sorted({job.partition("_")[0] for job in jobs}, key=int)
    for start in range(0, len(arrays), _JOBS_AT_ONCE):
        some = ",".join(arrays[start : start + _JOBS_AT_ONCE])
        shown = _call("squeue", "--noheader", "--array", f"--states={states}", f"--jobs={some}", "--format=%i|%x")
        for line in shown.stdout.splitlines():
            job, _, listed = line.partition("|")
            yield job, listed


def _expanded(nodes: str) -> list[str]:
    """Return the names in a list of nodes as Slurm writes it (`node[1-3],other`)."""
    if nodes in ("", "(null)"):
        return []
    return _call("scontrol", "show", "hostnames", nodes).stdout.split() if "[" in nodes else nodes.split(",")


_JOBS_AT_ONCE = 1000


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    # A requeue begins with SIGTERM to every process of the job, those that ask for it and for what follows among them.
    return subprocess.run([*DEAF, *command], capture_output=True, text=True, check=False)
