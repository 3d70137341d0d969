"""The dense matrix-multiply peak of a device, against which model FLOPs utilization (MFU) is reckoned.

A GPU's peak comes from its vendor's data sheet. A processor's is measured: its sheet knows nothing of the cores and
threads that a run has been given.
"""

from __future__ import annotations

import re
import time
from functools import cache
from typing import NamedTuple

import torch


class Peak(NamedTuple):
    """Dense TFLOP/s, without sparsity; None where the device has no unit for the precision."""

    bf16: float | None  # accumulated in fp32
    fp32: float  # TF32 off


# What a data sheet gives with sparsity is halved. `torch.cuda.get_device_name()`, less its maker, must match a pattern
# whole: of "H100 PCIe", "H100 NVL" and "H100 80GB HBM3" only the last is the SXM board. A slice of a GPU (MIG) and a
# board that is not listed match nothing.
_DATA_SHEETS = {
    # NVIDIA Tesla V100 data sheet (2020). Its tensor cores know fp16 alone.
    r"V100-SXM[23]-\d+GB": Peak(bf16=None, fp32=15.7),
    r"V100-PCIE-\d+GB": Peak(bf16=None, fp32=14.0),
    # NVIDIA A100 data sheet (2022): the same on all boards.
    r"A100-(SXM4?|PCIE)-(40|80)GB|A100 80GB PCIe": Peak(bf16=312.0, fp32=19.5),
    # NVIDIA A10, L4 and L40S data sheets.
    r"A10": Peak(bf16=125.0, fp32=31.2),
    r"L4": Peak(bf16=121.0, fp32=30.3),
    r"L40S": Peak(bf16=362.0, fp32=91.6),
    # NVIDIA Ampere GA102 and Ada architecture papers, appendix A: bf16 tensor cores with fp32 accumulation.
    r"RTX 3090": Peak(bf16=71.0, fp32=35.6),
    r"RTX 4090": Peak(bf16=165.2, fp32=82.6),
    # NVIDIA H100, H200 and GH200 data sheets.
    r"H100 \d+GB HBM3|H200|GH200 \d+GB?( HBM3e?)?": Peak(bf16=989.5, fp32=67.0),
    r"H100 PCIe": Peak(bf16=756.5, fp32=51.0),
    r"H100 NVL|H200 NVL": Peak(bf16=835.5, fp32=60.0),
    # NVIDIA HGX B200: a board of eight has 18,000 and 600.
    r"B200": Peak(bf16=2250.0, fp32=75.0),
    # AMD data sheets; fp32 with matrix cores. A program sees each half of an MI250X as a device of its own.
    r"MI250X": Peak(bf16=191.5, fp32=47.9),
    r"MI300X( VF)?": Peak(bf16=1307.4, fp32=163.4),
}
_MAKERS = re.compile(r"^(NVIDIA |AMD |Tesla |GeForce |Instinct )+")
# A measured peak is the best of many products of two square matrices, large enough to fill two processor cores.
_SIDE = 1024
_SECONDS = 0.2


def device_peak(device: torch.device, precision: str) -> float | None:
    """Return the peak of `device` in TFLOP/s for `precision` (fp32 | bf16): of its data sheet, or measured on a CPU.

    None for a GPU that is not in the table, and for bf16 where the GPU has no unit for it.
    """
    if device.type == "cpu":
        return measured_cpu_peak(precision, torch.get_num_threads())
    peak = data_sheet_peak(torch.cuda.get_device_name(device))
    return getattr(peak, precision) if peak else None


def data_sheet_peak(name: str) -> Peak | None:
    """Return the data sheet's peak of the GPU that torch calls `name`; None when it is not in the table."""
    bare = _MAKERS.sub("", name.strip())
    return next((peak for pattern, peak in _DATA_SHEETS.items() if re.fullmatch(pattern, bare)), None)


@cache
def measured_cpu_peak(precision: str, num_threads: int) -> float:
    """Return the best TFLOP/s of a matrix product with the `num_threads` threads this process has.

    Takes a fraction of a second, once per process. Processes that share cores and measure together each find their
    share. Nothing is drawn at random, so that no run depends on it.
    """
    assert num_threads == torch.get_num_threads(), "the threads that torch has now are what is measured"
    matrix = torch.full((_SIDE, _SIDE), 0.5, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    product = torch.mm(matrix, matrix)  # the first call builds its kernel
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while (started := time.perf_counter()) < end:
        torch.mm(matrix, matrix, out=product)
        best = min(best, time.perf_counter() - started)
    return 2 * _SIDE**3 / best / 1e12
