"""Which process is the slowest, by the time each one spends on what it does alone: getting a batch, the forward pass.

Whole steps tell nothing: in them all processes wait for the slowest. Under ZeRO-3 forward passes gather weights from
the other processes, so that part of a slow one's delay is seen on all.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from arvis_scale.engine.distributed import Processes

# A process this much slower than the median, in so many logged lines in a row, is warned of.
SLOW_EXCESS = 0.2
_LINES_IN_A_ROW = 3

_logger = logging.getLogger(__name__)


class OwnWork:
    """Adds up the seconds of this process's own work.

    On a GPU they are measured in its queue, which the host runs ahead of: waiting for data counts as far as the GPU
    waits for it.
    """

    def __init__(self) -> None:
        self._spans: list[tuple[Any, Any]] = []

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count the body's time."""
        start = _now()
        yield
        self._spans.append((start, _now()))

    def read(self) -> float:
        """Return the seconds since the last reading; waits for the device."""
        spans, self._spans = self._spans, []
        if not torch.cuda.is_available():
            return sum(end - start for start, end in spans)
        if spans:
            spans[-1][1].synchronize()
        return sum(start.elapsed_time(end) for start, end in spans) / 1000.0


def _now() -> Any:
    """Return a point in time: seconds, or on a GPU a mark in its queue."""
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


class SlowestRank:
    """Compares the processes at every logged line, and warns when the same one stays behind."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._rank, self._lines = -1, 0

    def compare(self, seconds: float) -> dict[str, float]:
        """Return `slowest_rank` and `slowest_rank_excess`, its time over the median's as a fraction of the median.

        `seconds` is this process's own work; every process must call it. Empty for a process that is alone.
        """
        if self._processes.world_size == 1:
            return {}
        of_all = self._processes.gather(seconds)
        rank = of_all.index(max(of_all))
        median = statistics.median_low(of_all)  # of two processes, the faster one
        excess = of_all[rank] / median - 1.0 if median > 0 else 0.0
        self._watch(rank, excess)
        return {"slowest_rank": float(rank), "slowest_rank_excess": excess}

    def _watch(self, rank: int, excess: float) -> None:
        is_slow = excess > SLOW_EXCESS
        self._lines = (self._lines + 1 if rank == self._rank else 1) if is_slow else 0
        self._rank = rank
        if self._lines == _LINES_IN_A_ROW and self._processes.is_first:
            _logger.warning(
                "rank %d has been %.0f%% slower than the others for %d lines; look at its machine and its disk",
                rank,
                100 * excess,
                self._lines,
            )
