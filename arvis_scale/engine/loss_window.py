"""Losses and metrics since the last logged line."""

from __future__ import annotations

import torch
from torch import Tensor

from arvis_scale.engine.distributed import Processes


class LossWindow:
    """Sums of losses and metrics, kept on the device until they are asked for."""

    def __init__(self, state: dict[str, float] | None = None) -> None:
        """Begin empty, or with what `state` of an earlier run gave (on one process of it alone)."""
        self._sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in (state or {}).items()}

    def add(self, loss: Tensor, details: dict[str, Tensor]) -> None:
        """Add one micro batch."""
        for name, value in {"loss": loss, **details, "count": torch.ones(())}.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name].to(value.device) + value if name in self._sums else value

    def state(self, processes: Processes) -> dict[str, float]:
        """Return the sums over processes, for a checkpoint between two logged lines; every process must call it."""
        names = sorted(self._sums)
        if not names:
            return {}
        return dict(zip(names, processes.sum([self._sums[name].item() for name in names]), strict=True))

    def mean(self, processes: Processes) -> dict[str, float]:
        """Return the means over micro batches and processes, and start anew; every process must call it."""
        sums = self.state(processes)
        self._sums = {}
        count = sums.pop("count")
        return {name: value / count for name, value in sums.items()}
