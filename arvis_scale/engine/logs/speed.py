"""How fast the steps between two logged lines were, and what memory they took.

Nothing here waits for a GPU: its kernels run behind the host, so times are true over windows at whose ends the train
loop has waited for it.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.profiler import record_function

from arvis_scale.config import RunConfig
from arvis_scale.planning.peaks import device_peak


class Speedometer:
    """Measures the steps between two logged lines, as one process sees them.

    `flops_per_sample` counts what the model needs for one image's forward and backward pass; what activation
    checkpointing computes a second time is not among it, so that it lowers `mfu`.
    """

    def __init__(self, config: RunConfig, *, flops_per_sample: float, device: torch.device) -> None:
        self._device = device
        self._global_batch_size = config.global_batch_size
        self._num_devices = config.parallel.processes
        self._flops_per_step = flops_per_sample * config.global_batch_size / config.parallel.processes
        self._peak = device_peak(device, config.precision)
        self._start_anew()

    def _start_anew(self) -> None:
        self._elapsed = 0.0
        self._waited = 0.0
        self._checkpoints = 0.0
        self._num_steps = 0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the body's time as waiting; in a trace it is called `data`."""
        start = time.perf_counter()
        with record_function("data"):
            yield
        self._waited += time.perf_counter() - start

    def count_step(self, seconds: float) -> None:
        """Count one optimizer step; validation and checkpoints between steps are not part of it."""
        self._elapsed += seconds
        self._num_steps += 1

    def count_checkpoint(self, seconds: float) -> None:
        """Count the seconds that training stood still for a checkpoint."""
        self._checkpoints += seconds

    def read(self) -> dict[str, float | None]:
        """Return the speeds since the last reading and start anew; `mfu` is null where the device's peak is unknown."""
        seconds_per_step = self._elapsed / self._num_steps
        images_per_second = self._global_batch_size / seconds_per_step
        tflops = self._flops_per_step / seconds_per_step / 1e12
        speeds = {
            "seconds_per_step": seconds_per_step,
            "images_per_second": images_per_second,
            "images_per_second_per_device": images_per_second / self._num_devices,
            "tflops_per_device": tflops,
            "mfu": tflops / self._peak if self._peak else None,
            "data_wait_fraction": self._waited / self._elapsed,
            "checkpoint_seconds": self._checkpoints,
            **peak_memory(self._device),
        }
        self._start_anew()
        return speeds


def peak_memory(device: torch.device) -> dict[str, float | None]:
    """Return the most bytes this process has held at once.

    `memory_bytes`: of tensors on a GPU, resident ones on a CPU; `memory_reserved_bytes`: what torch's allocator took
    from the GPU for them, null on a CPU.
    """
    if device.type == "cpu":
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"memory_bytes": float(resident), "memory_reserved_bytes": None}
    return {
        "memory_bytes": float(torch.cuda.max_memory_allocated(device)),
        "memory_reserved_bytes": float(torch.cuda.max_memory_reserved(device)),
    }
