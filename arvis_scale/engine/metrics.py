"""metrics.jsonl, the truth about a run's course, and TensorBoard, a view of it."""

from __future__ import annotations

import json
import logging
import math
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from arvis_scale.atomic import write_text
from arvis_scale.config import RunConfig
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.planning.peaks import peak_tflops

_logger = logging.getLogger(__name__)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl; a last line cut by a crash is left out, any other bad line is a `ValueError`."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path} line {number} is not valid JSON ({error.msg}); remove that line") from error
    return records


class MetricsLog:
    """Writes a run's scalars, from the first process only; on the others it writes nothing.

    Resumed at `step`, lines of later steps (written after the checkpoint that the run goes on from) are dropped, so
    that every step stands in the file once.
    """

    def __init__(self, folder: RunFolder, *, step: int, num_steps: int, is_first: bool) -> None:
        self._is_first = is_first
        if not is_first:
            return
        # The validation after the last step comes after its checkpoint, and is done again.
        kept = [
            record
            for record in read_metrics(folder.metrics)
            if record["step"] <= step and not ("val_loss" in record and record["step"] == num_steps)
        ]
        write_text(folder.metrics, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = open(folder.metrics, "a", encoding="utf-8")  # noqa: SIM115 - closed in __exit__
        self._last: dict[str, float | None] = {}
        self._writer = SummaryWriter(str(folder.tensorboard), purge_step=step + 1 if step else None)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_first:
            self._file.close()
            self._writer.close()

    def scalars(self, step: int, values: dict[str, float | None]) -> None:
        """Append one line and the same points to TensorBoard. Values that are not finite are written as null."""
        if not self._is_first:
            return
        finite = {key: value if value is not None and math.isfinite(value) else None for key, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        self._last = finite
        for key, value in finite.items():
            if value is not None and key != "samples_seen":
                self._writer.add_scalar(_TENSORBOARD_GROUP.get(key, "objective") + "/" + key, value, step)

    def say(self, step: int, num_steps: int) -> None:
        """Print the last line of scalars for whoever watches."""
        if not self._is_first:
            return
        last = self._last
        left = (num_steps - step) * (last["seconds_per_step"] or 0.0)
        _logger.info(
            "step %d of %d, loss %.4f, %.0f images/s, %s left",
            step,
            num_steps,
            last["loss"],
            last["images_per_second"],
            timedelta(seconds=round(left)),
        )

    def images(self, step: int, images: dict[str, torch.Tensor]) -> None:
        """Add pictures by name, `3 x H x W` in 0..1, to TensorBoard."""
        if not self._is_first:
            return
        for name, image in images.items():
            self._writer.add_image(name, image, step)


_TENSORBOARD_GROUP = {
    "loss": "train",
    "lr": "train",
    "grad_norm": "train",
    "val_loss": "validation",
    "seconds_per_step": "speed",
    "images_per_second": "speed",
    "tflops_per_device": "speed",
    "mfu": "speed",
    "data_wait_fraction": "speed",
    "memory_bytes": "speed",
}


class Speedometer:
    """Measures the steps between two logged lines. `flops_per_sample` counts forward and backward of one image."""

    def __init__(self, config: RunConfig, *, flops_per_sample: float) -> None:
        self._global_batch_size = config.global_batch_size
        self._flops_per_step = flops_per_sample * config.global_batch_size / config.parallel.processes
        self._peak = peak_tflops(config.precision)
        self._start_anew()

    def _start_anew(self) -> None:
        self._elapsed = 0.0
        self._waited = 0.0
        self._num_steps = 0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the body's time as waiting."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def count_step(self, seconds: float) -> None:
        """Count one optimizer step; validation and checkpoints between steps are not part of it."""
        self._elapsed += seconds
        self._num_steps += 1

    def read(self) -> dict[str, float | None]:
        """Return the speeds since the last reading and start anew; `mfu` is null where the device's peak is unknown."""
        seconds_per_step = self._elapsed / self._num_steps
        tflops = self._flops_per_step / seconds_per_step / 1e12
        speeds = {
            "seconds_per_step": seconds_per_step,
            "images_per_second": self._global_batch_size / seconds_per_step,
            "tflops_per_device": tflops,
            "mfu": tflops / self._peak if self._peak else None,
            "data_wait_fraction": self._waited / self._elapsed,
            "memory_bytes": float(peak_memory_bytes()),
        }
        self._start_anew()
        return speeds


def peak_memory_bytes() -> int:
    """Return the most memory this process has held: on the GPU when there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
