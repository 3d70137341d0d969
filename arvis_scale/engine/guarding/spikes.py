"""Loss spikes: a loss far above the last ones, judged on the device."""

from __future__ import annotations

import torch
from torch import Tensor

# Standard deviation of normal values over the median distance from their median.
_DEVIATION_PER_MEDIAN_DISTANCE = 1.4826
# Losses that hardly move have almost no spread; a rise by this fraction of the median is never a spike.
_LEAST_RISE = 1e-3


class SpikeDetector:
    """The losses of the last `window` good steps, and how many robust standard deviations above them a spike begins."""

    def __init__(self, window: int, deviations: float, device: torch.device) -> None:
        self._deviations = deviations
        self._losses = torch.full((window,), torch.nan, dtype=torch.float64, device=device)

    def is_spike(self, loss: Tensor) -> Tensor:
        """Return whether the scalar `loss` is a spike, as a boolean scalar; never before the window is full."""
        median = self._losses.median()
        spread = (self._losses - median).abs().median() * _DEVIATION_PER_MEDIAN_DISTANCE
        rise = torch.maximum(self._deviations * spread, _LEAST_RISE * median.abs())
        return loss > median + rise  # a NaN in the window makes both medians NaN, and this false

    def add(self, loss: Tensor, is_good: Tensor) -> None:
        """Let `loss` take the place of the oldest one where the boolean scalar `is_good` says so."""
        moved = torch.cat([self._losses[1:], loss.double().reshape(1)])
        self._losses = torch.where(is_good, moved, self._losses)

    def state(self) -> list[float]:
        """Return the window, oldest first, with NaN where it is not filled yet."""
        return self._losses.tolist()

    def load(self, losses: list[float]) -> None:
        """Take over the window of an earlier run's `state`, or the end of it, where that was longer."""
        window = len(self._losses)
        kept = [torch.nan] * window + losses
        self._losses = torch.tensor(kept[-window:], dtype=torch.float64, device=self._losses.device)
