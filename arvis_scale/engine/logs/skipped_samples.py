"""Samples that a run could not use and replaced (`data.on_bad_sample=skip`), counted by reason."""

from __future__ import annotations

import torch

from arvis_scale.data.faults import REASONS
from arvis_scale.engine.distributed import Processes
from arvis_scale.engine.parallel.train_engine import Batch


class SkippedSamples:
    """Counts over the whole run, of training batches; each process counts what it read."""

    def __init__(self, totals: dict[str, float] | None = None) -> None:
        """Begin at zero, or with the `totals` of an earlier start (on one process of it alone)."""
        before = totals or {}
        self._counts = torch.tensor([int(before.get(f"skipped_{reason}", 0)) for reason in REASONS])

    def count(self, batch: Batch) -> None:
        """Add what the loader says of a batch; one that was read under `raise` says nothing."""
        if "bad_samples" in batch:
            self._counts += batch["bad_samples"]

    def totals(self, processes: Processes) -> dict[str, float]:
        """Return `skipped_<reason>` for every reason met, over all processes; every process must call it."""
        sums = processes.sum([float(count) for count in self._counts])
        return {f"skipped_{reason}": total for reason, total in zip(REASONS, sums, strict=True) if total}
