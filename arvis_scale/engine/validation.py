"""The loss on held-out images, and pictures of what the model predicts for a few of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from arvis_scale.engine.deepspeed_here import DeepSpeedEngine
from arvis_scale.engine.distributed import Processes
from arvis_scale.engine.metrics import MetricsLog
from arvis_scale.models.pictures import prediction_pictures

Batch = dict[str, Tensor]
_NUM_IMAGES = 8  # shown in a picture


@torch.no_grad()
def validate(
    engine: DeepSpeedEngine,
    batches: Iterable[Batch],
    prepare: Callable[[Batch], Batch],
    processes: Processes,
    log: MetricsLog,
    step: int,
) -> float:
    """Return the mean loss over all images of all processes' `batches`, every image weighed once, and log it.

    All processes bring the same number of batches (ZeRO-3 gathers parameters in every forward pass); images that only
    fill up a batch carry weight 0.
    """
    engine.eval()
    total, count = 0.0, 0.0
    pictures: dict[str, Tensor] = {}
    for number, raw in enumerate(batches):
        batch = prepare(raw)
        weight = float(raw["weights"].sum())
        loss, _ = engine(batch)
        if weight:
            total += float(loss) * weight
            count += weight
        if number == 0:
            pictures = prediction_pictures(engine.module, {key: value[:_NUM_IMAGES] for key, value in batch.items()})
    engine.train()
    total, count = processes.sum([total, count])
    val_loss = total / count
    log.scalars(step, {"val_loss": val_loss})
    log.images(step, pictures)
    return val_loss
