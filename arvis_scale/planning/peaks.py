"""The dense matrix-multiply peak of known devices, for model FLOPs utilisation."""

from __future__ import annotations

import torch

# TFLOP/s without sparsity, from the vendors' data sheets (fp32 means TF32 off).
_PEAKS = {
    "H200": {"bf16": 989.0, "fp32": 67.0},
    "H100": {"bf16": 989.0, "fp32": 67.0},
    "A100": {"bf16": 312.0, "fp32": 19.5},
}


def peak_tflops(precision: str) -> float | None:
    """Return the peak of this machine's GPU in TFLOP/s, or None where there is none or it is not in the table."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    for device, peaks in _PEAKS.items():
        if device in name:
            return peaks[precision]
    return None
