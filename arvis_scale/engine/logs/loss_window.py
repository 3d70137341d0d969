"""Losses and metrics since the last logged line."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from arvis_scale.engine.distributed import Processes


class LossWindow:
    """Sums of losses and metrics, kept on the device until they are asked for."""

    def __init__(self, state: dict[str, float] | None = None) -> None:
        """Begin empty, or with what `state` of an earlier run gave (on one process of it alone)."""
        self._sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in (state or {}).items()}

    def add(self, loss: Tensor, details: dict[str, Tensor], *, is_kept: Tensor) -> None:
        """Add one micro batch, unless the boolean scalar `is_kept` says that its step was left out."""
        for name, value in {"loss": loss, **details, "count": torch.ones_like(loss)}.items():
            value = torch.where(is_kept, value.detach().double(), 0.0)
            self._sums[name] = self._sums[name].to(value.device) + value if name in self._sums else value

    def state(self, processes: Processes) -> dict[str, float]:
        """Return the sums over processes, for a checkpoint between two logged lines; every process must call it."""
        names = sorted(self._sums)
        if not names:
            return {}
        return dict(zip(names, processes.sum([self._sums[name].item() for name in names]), strict=True))

    def mean(self, processes: Processes) -> dict[str, float]:
        """Return the means over micro batches and processes, and start anew; every process must call it.

        NaN where no step was kept.
        """
        sums = self.state(processes)
        self._sums = {}
        count = sums.pop("count")
        return {name: value / count if count else math.nan for name, value in sums.items()}
