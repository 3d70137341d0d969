"""What a submitted job does: every task starts one process that trains, watches it, and the first decides what is next.

The task itself imports neither torch nor DeepSpeed and stays small, so that it outlives what it watches: a process that
is killed, for want of memory or by a broken device, cannot say so itself.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass

from arvis_scale.engine.checkpointing.files import newest_step
from arvis_scale.engine.exit_status import PREEMPTED
from arvis_scale.engine.ports import reserved_port
from arvis_scale.engine.preemption import PreemptionFlag
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.engine.run_lock import is_held_by_another_job, release_dead
from arvis_scale.launch.jobs import requeue
from arvis_scale.launch.jobs.bad_nodes import exclude_from_this_job, is_bad, record_failure
from arvis_scale.launch.jobs.meeting import Order, Task
from arvis_scale.launch.jobs.retries import Next, after_start, may_be_the_nodes
from arvis_scale.launch.jobs.watching import GRACE_SECONDS, train_watched

DEFAULT_MAX_ATTEMPTS = 3
# The other tasks take a little longer to notice that their processes ended.
_SPARE_SECONDS = 15.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobRun:
    """One run of a job: its kind (see `studies.expansion.PlannedRun`) and its folder, which holds its config.yaml."""

    kind: str
    folder: str


class UnfinishedRunsError(Exception):
    """Runs of a job did not complete: Slurm, too, shall call it failed."""


def run_job(runs: list[JobRun], max_attempts: int = DEFAULT_MAX_ATTEMPTS) -> list[str]:
    """Do the runs in order and return their final states; called by every task of the job.

    A run that completed earlier is not done again. One that fails is recorded in its folder and tried again where that
    may help, until `max_attempts` starts have brought no new checkpoint. After a signal to stop, which a run answers
    with a checkpoint, a Slurm job goes back into the queue with what it has left. Raises `UnfinishedRunsError` in the
    first task when a run failed for good.
    """
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("arvis_scale").setLevel(logging.INFO)
    task = Task()
    with PreemptionFlag() as stop:
        if task.is_first:
            _lead(task, runs, max_attempts, stop)
        else:
            _follow(task, stop)
    states = [RunFolder(run.folder).status().state for run in runs]
    if task.is_first and "failed" in states:
        raise UnfinishedRunsError(f"{states.count('failed')} of {len(runs)} runs failed; look at `sweep status`")
    return states


def _follow(task: Task, stop: PreemptionFlag) -> None:
    for number in itertools.count():
        order = task.wait_for(number)
        if not order.runs:
            return
        train_watched(task, number, order, stop)


def _lead(task: Task, runs: list[JobRun], max_attempts: int, stop: PreemptionFlag) -> None:
    """Give orders until nothing is left that can be done here; what is left then goes back into Slurm's queue."""
    left = [_Run(run, max_attempts) for run in runs]
    job = requeue.this_job() if task.is_slurm else None
    # A job that was put back before it was told may come to a node that has turned out bad since.
    stopped = task.is_slurm and is_bad(left[0].folder, task.nodes)
    if stopped:
        for run in left:
            run.turn_away()
    with reserved_port() as port:
        for number in itertools.count():
            here = [] if stopped or stop.raised_by else [run for run in left if run.next is Next.HERE]
            for run in here:
                run.begin()
            chosen = [(run.kind, str(run.folder.path)) for run in here]
            attempts = [run.folder.status().attempt + 1 for run in here]
            order = Order(chosen, attempts, task.own_address(), port, job.ends_at if job else None)
            task.give(number, order)
            if not here:
                break
            train_watched(task, number, order, stop)
            task.wait_for_all(number, GRACE_SECONDS + _SPARE_SECONDS)
            states = [run.end(can_requeue=task.is_slurm) for run in here]
            stopped = "preempted" in states
    unfinished = [run for run in left if run.next is not Next.NOTHING]
    if task.is_slurm and unfinished and requeue.requeue_this_job():
        for run in unfinished:
            run.begin()
        exclude_from_this_job(unfinished[0].folder)


class _Run:
    """A run of this job, and what is next for it."""

    def __init__(self, run: JobRun, max_attempts: int) -> None:
        self.kind, self.folder, self._max_attempts = run.kind, RunFolder(run.folder), max_attempts
        self.next = Next.HERE
        if not self._is_held():
            self.next, status = after_start(self.folder, max_attempts)
            self._write(status)
        if self.next is Next.REQUEUED:  # it has been
            self.next = Next.HERE

    def begin(self) -> None:
        """Let the next start find the run pending, so that what fails before it counts as a start too."""
        status = self.folder.status()
        if status.state not in ("pending", "completed") and not self._is_held():
            self.folder.write_status(status.pending(status.num_steps, is_retry=True))

    def turn_away(self) -> None:
        """Count the coming to a bad node as a start, so that a job which Slurm sends there for ever is given up."""
        if self.next is Next.HERE and not self._is_held():
            status = self.folder.status()
            status = status.next_attempt(status.num_steps, begun_from=newest_step(self.folder.checkpoints))
            status.state, status.exit_status = "preempted", PREEMPTED
            status.reason = f"not tried on {status.node}, where other runs failed (node_failures in the study's folder)"
            self.folder.write_status(status)
            self.next, decided = after_start(self.folder, self._max_attempts)
            self._write(decided)

    def end(self, *, can_requeue: bool) -> str:
        """Decide what is next after a start, of which no process is alive, and return the state that it left."""
        release_dead(self.folder)
        status = self.folder.status()
        if self._is_held():  # by another job, which goes on with it
            self.next = Next.NOTHING
            return status.state
        if may_be_the_nodes(status):
            record_failure(self.folder, status.node)
        self.next, decided = after_start(self.folder, self._max_attempts)
        self._write(decided)
        if self.next is Next.REQUEUED and not can_requeue:
            self.next = Next.HERE if status.state == "failed" else Next.NOTHING
        return status.state

    def _write(self, decided: Status) -> None:
        if decided != self.folder.status():
            self.folder.write_status(decided)
            _logger.info("%s: %s", self.folder.path, decided.last_reason)

    def _is_held(self) -> bool:
        return self.folder.status().state != "completed" and is_held_by_another_job(self.folder)
