"""What becomes of a run after one start of it: is it done, tried again, or given up?"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from arvis_scale.config import RunConfig, load_config
from arvis_scale.engine.checkpointing.files import newest_step
from arvis_scale.engine.exit_status import BAD_INPUT, FAILED, HANGING, OUT_OF_MEMORY, PREEMPTED, STOPPED_BY_GUARD
from arvis_scale.engine.out_of_memory import fitted, half_micro_batch
from arvis_scale.engine.run_folder import ENDED_WITHOUT_A_WORD, GIVEN_UP, RunFolder, Status
from arvis_scale.launch.cancellation import is_cancelled

# What the processes that live on say when one of theirs is gone: their own nodes have done nothing wrong. In the words
# of the kernel and gloo, of torch's store, and of NCCL (issues 795 and 2076 of its repository).
_LOST_CONNECTION = (
    "Connection reset by peer", "Connection closed by peer", "Broken pipe", "Connection refused",
    "Connection was likely closed",
    "Connection closed by remote peer", "remote process exit", "ncclRemoteError",
)  # fmt: skip
# NCCL's watchdog ends a process so when another of its group is gone.
_ABORTED = "was ended by SIGABRT"


class Next(Enum):
    """What to do with a run."""

    # It completed, failed for good, or was cancelled.
    NOTHING = "nothing"
    # Start it in this job: it was not reached, or what went wrong is mended.
    HERE = "here"
    # Start it in another start of the job: it was asked to leave, or the node may be to blame.
    REQUEUED = "requeued"


def after_start(folder: RunFolder, max_attempts: int) -> tuple[Next, Status]:
    """Return what to do with the run of `folder`, of which no process is alive, and the status that says so.

    `max_attempts`: starts without a new checkpoint before it is given up.
    """
    status = folder.status()
    if status.state == "completed" or is_cancelled(folder.path):
        return Next.NOTHING, status
    if status.state == "pending":
        return Next.HERE, status
    if status.state == "failed" and status.exit_status in (BAD_INPUT, STOPPED_BY_GUARD):
        return Next.NOTHING, status
    if status.state == "failed" and status.exit_status == OUT_OF_MEMORY:
        return _after_out_of_memory(status, load_config(str(folder.config)))
    num_starts = status.starts_without_progress(newest_step(folder.checkpoints))
    if num_starts >= max_attempts:
        return Next.NOTHING, _given_up(status, f"{num_starts} starts without a new checkpoint")
    return Next.REQUEUED, status


def may_be_the_nodes(status: Status) -> bool:
    """Return whether a run failed as a broken node makes it fail, and not by its input, its guards or its size."""
    lost = (*_LOST_CONNECTION, *([_ABORTED] if status.num_devices > 1 else []))
    is_consequence = any(words in status.reason for words in lost)
    return status.state == "failed" and status.exit_status in (FAILED, HANGING) and not is_consequence


def _after_out_of_memory(status: Status, config: RunConfig) -> tuple[Next, Status]:
    size = fitted(config, status.out_of_memory_at).micro_batch_size
    if status.out_of_memory_at is not None:
        return Next.NOTHING, _given_up(status, f"out of memory with half the micro batch, {size}, too")
    smaller = half_micro_batch(config, size)
    if smaller is None:
        return Next.NOTHING, _given_up(status, f"out of memory with micro_batch_size={size}, which cannot be halved")
    reason = f"{status.reason}; goes on with micro_batch_size={smaller} in place of {size}"
    # Pending at once: that it was decided, and not tried, must outlive this job.
    decided = replace(status, out_of_memory_at=size, reason=reason)
    return Next.HERE, decided.pending(status.num_steps, is_retry=True)


def _given_up(status: Status, why: str) -> Status:
    if status.reason.startswith(GIVEN_UP):  # by an earlier start of the job
        return status
    code = FAILED if status.exit_status in (None, PREEMPTED) else status.exit_status
    last = f"; the last: {status.reason or ENDED_WITHOUT_A_WORD}"
    return replace(status, state="failed", exit_status=code, reason=f"{GIVEN_UP}{why}{last}")
