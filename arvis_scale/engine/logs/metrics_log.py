"""metrics.jsonl, the truth about a run's course; TensorBoard's pages follow it."""

from __future__ import annotations

import json
import logging
import math
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from arvis_scale.atomic import write_text
from arvis_scale.config import RunConfig
from arvis_scale.engine.logs.tensorboard_pages import TensorBoardPages
from arvis_scale.engine.run_folder import RunFolder

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
    """Writes a run's course, from the first process only; on the others it writes nothing.

    Resumed at `step`, what an earlier start wrote of later steps (after the checkpoint that the run goes on from) is
    dropped, so that every step stands in metrics.jsonl, and in TensorBoard, once.
    """

    def __init__(self, folder: RunFolder, *, step: int, num_steps: int, is_first: bool) -> None:
        self._is_first = is_first
        # Whether no earlier start has shown in TensorBoard what the run is: then the loop calls `begin`.
        self.is_new = is_first and (step == 0 or not folder.tensorboard.exists())
        if not is_first:
            return
        self._folder = folder
        self._step = step
        self._last: dict[str, float | None] = {}
        # The validation after the last step comes after its checkpoint, and is done again.
        at_end = step > 0 and step == num_steps
        records = [record for record in read_metrics(folder.metrics) if 0 < record["step"] <= step]
        kept = [record for record in records if not ("val_loss" in record and at_end and record["step"] == step)]
        write_text(folder.metrics, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = open(folder.metrics, "a", encoding="utf-8")  # noqa: SIM115 - closed in __exit__
        first_step = step if at_end or step == 0 else step + 1
        self._pages = TensorBoardPages(folder.tensorboard, folder.tensorboard_images, first_step=first_step)
        for record in kept if at_end else []:
            if record.pop("step") == step:
                self._pages.scalars(step, record)

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
            self._pages.close()

    def begin(self, config: RunConfig, *, unique_images: int | None, images: dict[str, Tensor]) -> None:
        """Show in TensorBoard what the run is, before its first step: its configuration and `images` by name."""
        if self._is_first:
            self._pages.begin(self._step, config, self._folder.config.read_text("utf-8"), unique_images=unique_images)
            self._pages.images(self._step, images)

    def scalars(self, step: int, values: dict[str, float | None]) -> None:
        """Append one line and the same points to TensorBoard. Values that are not finite are written as null."""
        if not self._is_first:
            return
        finite = {key: value if value is not None and math.isfinite(value) else None for key, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        self._last = finite
        self._pages.scalars(step, finite)

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
            math.nan if last["loss"] is None else last["loss"],
            last["images_per_second"],
            timedelta(seconds=round(left)),
        )

    def images(self, step: int, images: dict[str, Tensor]) -> None:
        """Add pictures by name, `3 x H x W` in 0..1, to TensorBoard."""
        if self._is_first:
            self._pages.images(step, images)

    def finish(self, step: int, probes: dict[str, Any]) -> None:
        """Show in TensorBoard that the run is complete, and what its `probes` found, as result.json holds it."""
        if self._is_first:
            self._pages.finish(step, probes)
