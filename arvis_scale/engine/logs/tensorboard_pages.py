"""TensorBoard's pages of one run: scalars in groups, pictures, the configuration as text, a line in its HPARAMS table.

`metrics.jsonl` and `config.yaml` are the truth; this is a view of them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as hparams_summaries

from arvis_scale.config import OBJECTIVES, RunConfig
from arvis_scale.engine.logs.metric_names import PROBE_ACCURACY, VAL_LOSS, probe_names, scalar_names

# Columns of the HPARAMS table: these results, the last points of their curves, beside the hyperparameters, of which
# the page shows five at first: what a study varies.
_RESULTS = (VAL_LOSS, PROBE_ACCURACY)
_VARIED = ("objective", "preset", "unique_images", "samples_seen", "seed")


class TensorBoardPages:
    """Writes the event files of one start of a run; TensorBoard reads those of all starts as one.

    Points at `first_step` and later, of an earlier start, are dropped. Pictures stand in `image_folder`, so that
    hundreds of runs can be shown without them.
    """

    def __init__(self, folder: Path, image_folder: Path, *, first_step: int) -> None:
        self._writer = _writer(folder, first_step)
        self._image_writer = _writer(image_folder, first_step)

    def scalars(self, step: int, values: dict[str, float | None]) -> None:
        """Add a point to each curve that has a value."""
        for name, value in scalar_names(values).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # a run that is killed has shown what metrics.jsonl holds

    def images(self, step: int, images: dict[str, Tensor]) -> None:
        """Add pictures by name, `3 x H x W` in 0..1."""
        for name, image in images.items():
            self._image_writer.add_image(f"pictures/{name}", image, step)
        self._image_writer.flush()

    def begin(self, step: int, config: RunConfig, config_text: str, *, unique_images: int | None) -> None:
        """Show the configuration, and the run as a line of the HPARAMS table."""
        columns = {
            "objective": config.objective,
            "preset": config.preset,
            "unique_images": "not known" if unique_images is None else unique_images,
            "samples_seen": config.samples_seen,
            "learning_rate": config.optimizer.learning_rate,
            "global_batch_size": config.global_batch_size,
            "seed": config.seed,
        }
        self._writer.add_text("config", f"```yaml\n{config_text}```", step)
        # Into the run's own folder: `SummaryWriter.add_hparams` would open a second run for the line.
        experiment, session_start, _ = hparams_summaries(
            columns, dict.fromkeys(_RESULTS, 0.0), {"objective": list(OBJECTIVES)}
        )
        _put_first(experiment, _VARIED)
        self._add_summaries(step, experiment, session_start)

    def finish(self, step: int, probes: dict[str, Any]) -> None:
        """Add the accuracies of `probes`, as result.json holds them, and mark the run's HPARAMS line as successful."""
        for name, accuracy in probe_names(probes).items():
            self._writer.add_scalar(name, accuracy, step)
        _, _, session_end = hparams_summaries({}, {})
        self._add_summaries(step, session_end)

    def _add_summaries(self, step: int, *summaries: Any) -> None:
        for summary in summaries:
            self._writer.file_writer.add_summary(summary, step)  # type: ignore[attr-defined]  # torch says None
        self._writer.flush()

    def close(self) -> None:
        """Write what is pending."""
        self._writer.close()
        self._image_writer.close()


def _writer(folder: Path, first_step: int) -> SummaryWriter:
    # TensorBoard reads files in the order of their names: second, host, process and a number that is not padded.
    while any(folder.glob(f"events.out.tfevents.{int(time.time())}.*")):
        time.sleep(0.05)
    # Given at the first start too: TensorBoard takes a run's first mark for its beginning and drops nothing there.
    return SummaryWriter(str(folder), purge_step=first_step)


def _put_first(experiment: Any, names: tuple[str, ...]) -> None:
    """Let the columns `names` stand before the others in what torch has made of the HPARAMS table."""
    packed = experiment.value[0].metadata.plugin_data
    table = HParamsPluginData.FromString(packed.content)
    for column in table.experiment.hparam_infos:
        column.differs = column.name in names
    packed.content = table.SerializeToString()
