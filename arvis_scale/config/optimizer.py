"""The optimizer and its learning-rate schedule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class OptimizerConfig:
    """AdamW with a linear warm-up and a cosine decay. No weight decay on one-dimensional parameters."""

    # Peak learning rate, reached after the warm-up; not scaled by the batch size.
    learning_rate: float = 1e-3
    # Learning rate of the first step and of the last.
    initial_learning_rate: float = 1e-4
    final_learning_rate: float = 1e-6
    # Fraction of the training steps spent warming up.
    warmup_fraction: float = 0.05
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.95
    # Gradients are scaled down to this global norm when they exceed it.
    clip_grad_norm: float = 1.0

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        if self.learning_rate <= 0:
            raise ValueError(f"optimizer.learning_rate={self.learning_rate} must be positive")
        if not 0 <= self.warmup_fraction <= 1:
            raise ValueError(f"optimizer.warmup_fraction={self.warmup_fraction} must lie between 0 and 1")
        if self.clip_grad_norm <= 0:
            raise ValueError(f"optimizer.clip_grad_norm={self.clip_grad_norm} must be positive")
