"""The optimizer and its learning-rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from arvis_scale.config.hints import one_of

OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("cosine", "warmup_stable_decay")


@dataclass
class OptimizerConfig:
    """AdamW, or Muon for the matrices of the blocks; no weight decay on one-dimensional parameters."""

    # adamw | muon (matrices of transformer blocks; AdamW for all other parameters).
    name: str = "adamw"
    # Peak learning rate, reached after the warm-up; not scaled by the batch size.
    learning_rate: float = 1e-3
    # Learning rate of the first step and of the last.
    initial_learning_rate: float = 1e-4
    final_learning_rate: float = 1e-6
    # cosine | warmup_stable_decay: a warm-up, the peak rate, and a cool-down over the last steps, which other runs can
    # branch from before it begins (`parent`).
    schedule: str = "cosine"
    # Fraction of the training steps spent warming up.
    warmup_fraction: float = 0.05
    # Images seen during the warm-up, rounded to whole steps, instead of the fraction: the same in runs of every length.
    # null: `warmup_fraction`.
    warmup_samples: int | None = None
    # Fraction of the training steps spent cooling down, one step or more, or 0 for never; warmup_stable_decay only.
    cooldown_fraction: float = 0.2
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.95
    # Peak rate of the matrices that Muon updates, which follows the same schedule in proportion. An update is an
    # orthogonal matrix times sqrt(max(1, rows / columns)), so that this is the change of a weight in spectral norm.
    muon_learning_rate: float = 0.02
    # Nesterov momentum of Muon.
    muon_momentum: float = 0.95
    # Gradients are scaled down to this global norm when they exceed it; inf: never, as Muon asks for.
    clip_grad_norm: float = 1.0

    def warmup_steps(self, num_steps: int, global_batch_size: int) -> int:
        """Return the steps of the warm-up in a run of `num_steps`."""
        if self.warmup_samples is None:
            return round(self.warmup_fraction * num_steps)
        return round(self.warmup_samples / global_batch_size)

    def cooldown_start(self, num_steps: int) -> int:
        """Return the step, counted from 0, that a warmup_stable_decay run of `num_steps` begins to cool down after."""
        return num_steps - round(self.cooldown_fraction * num_steps)

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        one_of("optimizer.name", self.name, OPTIMIZERS)
        one_of("optimizer.schedule", self.schedule, SCHEDULES)
        for key in ("learning_rate", "muon_learning_rate", "clip_grad_norm"):
            if not getattr(self, key) > 0:
                raise ValueError(f"optimizer.{key}={getattr(self, key)} must be positive")
        for key in ("warmup_fraction", "cooldown_fraction"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"optimizer.{key}={getattr(self, key)} must lie between 0 and 1")
        if self.warmup_samples is not None and self.warmup_samples < 0:
            raise ValueError(f"optimizer.warmup_samples={self.warmup_samples} must not be negative")
        if not 0 <= self.muon_momentum < 1:
            raise ValueError(f"optimizer.muon_momentum={self.muon_momentum} must lie between 0 and 1, 1 excluded")
        if self.name == "muon" and self.clip_grad_norm < math.inf:
            raise ValueError(
                f"optimizer.clip_grad_norm={self.clip_grad_norm} would scale Muon's finished updates: DeepSpeed clips "
                "after it orthogonalizes; set optimizer.clip_grad_norm=inf with optimizer.name=muon"
            )

    def validate_length(self, num_steps: int, global_batch_size: int) -> None:
        """Raise `ValueError` when warm-up and cool-down do not fit into `num_steps`."""
        if self.schedule != "warmup_stable_decay" or num_steps == 0:  # an untrained reference has no schedule
            return
        warmup, start = self.warmup_steps(num_steps, global_batch_size), self.cooldown_start(num_steps)
        if warmup > start:
            raise ValueError(
                f"optimizer.warmup_samples={self.warmup_samples} and optimizer.warmup_fraction={self.warmup_fraction} "
                f"warm up for {warmup} steps, but the cool-down (optimizer.cooldown_fraction={self.cooldown_fraction}) "
                f"of {num_steps} begins after {start}; lower one, or raise samples_seen"
            )
