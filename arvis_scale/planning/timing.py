"""How long a step takes: FLOPs over the device's peak times the fraction of it that training reaches, as measured.

`calibration.json` holds fractions by device and precision for several sizes; `benchmarks/calibrate_plan.py` measures
them. Communication and the loader are not modelled: on one device they hide behind the computation, over slow links
they do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from arvis_scale.atomic import read_json

CALIBRATION = "calibration.json"
# Of a device that was not measured: what well-fed vision transformers reach on GPUs.
ASSUMED_FRACTION = 0.4


@dataclass(frozen=True)
class Speed:
    """The fraction of a device's peak that training reaches."""

    fraction: float
    # In words: measured when and on what, or assumed.
    source: str
    is_measured: bool


def expected_speed(device: str, precision: str, flops_per_pass: float) -> Speed:
    """Return the speed of passes of `flops_per_pass` (forward and backward of one micro batch) on one device.

    Between measured sizes it is interpolated over the logarithm; beyond them the nearest holds.
    """
    for entry in _file()["entries"]:
        if (entry["device"], entry["precision"]) == (device, precision):
            points = sorted(entry["points"], key=lambda point: point["flops_per_pass"])
            sizes = [log(point["flops_per_pass"]) for point in points]
            fractions = [point["fraction_of_peak"] for point in points]
            fraction = float(np.interp(log(flops_per_pass), sizes, fractions))
            return Speed(fraction, f"measured {entry['date']} on {entry['machine']}", True)
    return Speed(ASSUMED_FRACTION, f"{device} is not calibrated for {precision}; an assumption", False)


def bubble(stages: int, micro_batches: int) -> float:
    """Return how much longer a pipeline's step takes than its slowest stage's work: (m + s - 1) / m.

    One forward, one backward in turn (arXiv 1806.03377), as DeepSpeed schedules them.
    """
    return (micro_batches + stages - 1) / micro_batches


def process_bytes(stage: int) -> float:
    """Return what a training process on a CPU holds beside its tensors once it runs, under ZeRO `stage`.

    Code and tables that DeepSpeed and torch load at their first use, after the imports.
    """
    return _file()["cpu_process_bytes"]["zero0" if stage == 0 else "zero1_to_3"]


@cache
def _file() -> dict[str, Any]:
    path = Path(str(resources.files("arvis_scale.planning"))) / CALIBRATION
    return read_json(path, newest_schema=1)
