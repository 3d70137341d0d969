"""How a run is spread over processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from arvis_scale.config.hints import one_of

STRATEGIES = ("zero1", "zero2", "zero3")


@dataclass
class ParallelConfig:
    """How the run is spread over processes; the losses do not depend on it."""

    # DeepSpeed strategy: the name of a file of ds_configs/ (zero1, zero2, zero3).
    strategy: str = "zero1"
    # Training processes of the run, one per device. Under torchrun or Slurm the launcher's count must agree.
    processes: int = 1
    # Keys of the strategy's JSON to replace, e.g. {zero_optimization: {overlap_comm: false}}.
    deepspeed: dict[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        one_of("parallel.strategy", self.strategy, STRATEGIES)
        if self.processes < 1:
            raise ValueError(f"parallel.processes={self.processes} must be at least 1")
