"""Under which names the keys of metrics.jsonl and result.json stand in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Columns of the HPARAMS page: the last points of these curves.
VAL_LOSS = "loss/val_loss"
PROBE_ACCURACY = "probe/linear_accuracy"


def scalar_names(record: Mapping[str, float | None]) -> dict[str, float]:
    """Return the points of one line of metrics.jsonl by the names of their curves."""
    return {
        f"{_group_of(name)}/{name}": value
        for name, value in record.items()
        if value is not None and name not in ("step", "samples_seen")  # the step again, in another unit
    }


def probe_names(probes: Mapping[str, Any]) -> dict[str, float]:
    """Return the accuracies of `probes`, as result.json holds them, by the names of their curves."""
    # Not the list of a probe by layer.
    return {f"probe/{name}_accuracy": probe["accuracy"] for name, probe in probes.items() if "accuracy" in probe}


def _group_of(metric: str) -> str:
    """Return what a metric stands under; TensorBoard sorts groups by name and opens the first ones."""
    if metric.endswith("loss"):
        return "loss"
    return "optimizer" if metric in ("lr", "grad_norm") else "system"
