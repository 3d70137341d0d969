"""How a run is spread over processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from arvis_scale.config.hints import one_of

STRATEGIES = ("zero0", "zero1", "zero2", "zero3", "zero3_offload", "pipeline")


@dataclass
class ParallelConfig:
    """How the run is spread over processes; the losses do not depend on it."""

    # DeepSpeed strategy, the name of a file of ds_configs/: zero0 | zero1 | zero2 | zero3 | zero3_offload | pipeline.
    strategy: str = "zero1"
    # Training processes of the run, one per device. Under torchrun or Slurm the launcher's count must agree.
    processes: int = 1
    # Stages that strategy `pipeline` cuts the model into, by FLOPs; processes / stages copies of the whole pipeline
    # compute shares of each batch. 1: no pipeline.
    stages: int = 1
    # Activations of every n-th transformer block, of encoder and decoders, are computed again in the backward pass
    # instead of kept. 1: of every block; 0: of none.
    activation_checkpointing_every: int = 0
    # Compile the objective with torch.compile (on a CPU this needs a C++ compiler); not with a pipeline.
    compile: bool = False
    # Keys of the strategy's JSON to replace, e.g. {zero_optimization: {overlap_comm: false}}.
    deepspeed: dict[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        one_of("parallel.strategy", self.strategy, STRATEGIES)
        for key in ("processes", "stages"):
            if getattr(self, key) < 1:
                raise ValueError(f"parallel.{key}={getattr(self, key)} must be at least 1")
        if self.activation_checkpointing_every < 0:
            raise ValueError(
                f"parallel.activation_checkpointing_every={self.activation_checkpointing_every} must not be negative"
            )
        if self.compile and self.strategy == "pipeline":
            raise ValueError(
                "parallel.compile=true with parallel.strategy=pipeline: DeepSpeed's pipeline engine cannot be compiled"
            )
        if self.processes % self.stages:
            raise ValueError(
                f"parallel.processes={self.processes} is not a multiple of parallel.stages={self.stages}; change one"
            )
        if self.strategy == "pipeline" and self.stages == 1:
            raise ValueError("parallel.strategy=pipeline needs parallel.stages=2 or more")
        if self.strategy != "pipeline" and self.stages > 1:
            reason = "is without stages"
            if self.strategy not in ("zero0", "zero1"):
                reason = "cannot be had with stages: DeepSpeed's pipeline engine refuses ZeRO-2 and ZeRO-3"
            raise ValueError(
                f"parallel.strategy={self.strategy} {reason}; take parallel.strategy=pipeline (with ZeRO-1), or "
                f"parallel.stages=1"
            )
