"""The devices that a run can be planned for: memory and matrix-multiply peak."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass

import torch

from arvis_scale.planning.peaks import data_sheet_peak, measured_cpu_peak

# What `torch.cuda.get_device_name()` calls it, and the data sheet's memory in GB.
_GPUS = {
    "a100-40": ("A100-SXM4-40GB", 40),
    "a100": ("A100-SXM4-80GB", 80),
    "l40s": ("L40S", 48),
    "h100": ("H100 80GB HBM3", 80),
    "h200": ("H200", 141),
    "b200": ("B200", 180),
    "mi250x": ("MI250X", 64),
    "mi300x": ("MI300X", 192),
}
DEVICES = ("cpu", *_GPUS)
# The rest is for the driver's context, the buffers of collectives and what fragmentation loses.
_USABLE = 0.92


@dataclass(frozen=True)
class Device:
    """One device of a run."""

    name: str
    memory_bytes: float  # of one process
    peak_tflops: float | None  # dense, in the run's precision; None where the device has no unit for it

    @property
    def usable_bytes(self) -> float:
        """Bytes that a run's tensors may take."""
        return _USABLE * self.memory_bytes

    @property
    def is_cpu(self) -> bool:
        """Whether processes share a processor and its memory."""
        return self.name == "cpu"


def find_device(name: str, precision: str, *, num_here: int = 1) -> Device:
    """Return the device called `name`, with its peak in `precision` (fp32 | bf16).

    `num_here`: processes that share this machine, for the cpu, whose memory and peak are this machine's. Raises
    `ValueError` for an unknown name.
    """
    if name == "cpu":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Device(name, memory / num_here, measured_cpu_peak(precision, torch.get_num_threads()))
    if name not in _GPUS:
        near = difflib.get_close_matches(name.lower(), DEVICES, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"--device {name!r} is not known{hint}; one of {', '.join(DEVICES)}")
    sheet, gigabytes = _GPUS[name]
    peak = data_sheet_peak(sheet)
    assert peak is not None, f"{sheet} is in the table of peaks"
    return Device(name, gigabytes * 1e9, getattr(peak, precision))


def device_here() -> str:
    """Return the name of this machine's kind of device: its GPU where it is known, else cpu."""
    if torch.cuda.is_available():
        here = torch.cuda.get_device_name()
        for name, (sheet, _) in _GPUS.items():
            if sheet in here:
                return name
    return "cpu"
