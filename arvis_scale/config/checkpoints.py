"""When a run saves itself, how, and what it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field

from arvis_scale.config.hints import one_of

KEEP_OPTIMIZER_STATE = ("all", "newest", "until_finished")


@dataclass
class CheckpointConfig:
    """Checkpoints of a run; cadences in optimizer steps."""

    # Checkpoint every so many steps, and always when preempted and after the last step; 0: only then.
    every: int = 200
    # Newest checkpoints kept.
    keep_last: int = 2
    # Checkpoints kept for good: those whose step is a multiple of this; 0: none.
    keep_every: int = 0
    # Further steps after which a checkpoint is written and kept for good, with its optimizer state whatever
    # `keep_optimizer_state` says: where other runs branch from this one.
    also_at: list[int] = field(default_factory=list)
    # Which of the kept checkpoints keep the optimizer's moments, half of their size or more; without them weights can
    # be read, but no run can go on from there. all: every one, finished run or not, so that a run can branch from any;
    # newest: the `keep_last` newest; until_finished: the same, and none once the run has completed.
    keep_optimizer_state: str = "all"
    # Write while training goes on. Each process then holds a copy of all that it writes in host memory, from the save
    # until its files are written: with fp32 weights, moments and master weights spread over n processes
    # 12 bytes x parameters / n, and under ZeRO-0..2 the model once more on the first.
    background: bool = True

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        if self.every < 0 or self.keep_every < 0:
            raise ValueError(
                f"checkpoints.every={self.every} and checkpoints.keep_every={self.keep_every} must not be negative"
            )
        if self.keep_last < 1:
            raise ValueError(f"checkpoints.keep_last={self.keep_last} must be at least 1")
        if self.every and self.keep_every % self.every:
            raise ValueError(
                f"checkpoints.keep_every={self.keep_every} is not a multiple of checkpoints.every={self.every}, so "
                f"some of those steps are never saved; change one"
            )
        if any(step < 1 for step in self.also_at):
            raise ValueError(f"checkpoints.also_at={self.also_at} must be steps, each at least 1")
        one_of("checkpoints.keep_optimizer_state", self.keep_optimizer_state, KEEP_OPTIMIZER_STATE)
