"""What a run writes down about itself, and how often."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LogConfig:
    """Cadences, in optimizer steps."""

    # One line of metrics.jsonl and one TensorBoard point every so many steps.
    metrics_every: int = 10
    # Validation loss and reconstruction image every so many steps, and always after the last; 0: only after the last.
    validate_every: int = 0

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        if self.metrics_every < 1:
            raise ValueError(f"log.metrics_every={self.metrics_every} must be at least 1")
