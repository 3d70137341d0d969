"""The loss on held-out images, and a picture of what the model predicts for a few of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torchvision.utils import make_grid

from arvis_scale.engine.deepspeed_here import DeepSpeedEngine
from arvis_scale.engine.distributed import Processes
from arvis_scale.engine.metrics import MetricsLog
from arvis_scale.models.images import denormalize

Batch = dict[str, Tensor]
_NUM_PICTURES = 8


@torch.no_grad()
def validate(
    engine: DeepSpeedEngine,
    batches: Iterable[Batch],
    prepare: Callable[[Batch], Batch],
    processes: Processes,
    log: MetricsLog | None,
    step: int,
) -> float:
    """Return the mean loss over all images of all processes' `batches`, every image weighed once, and log it.

    All processes bring the same number of batches (ZeRO-3 gathers parameters in every forward pass); images that only
    fill up a batch carry weight 0.
    """
    engine.eval()
    total, count = 0.0, 0.0
    picture = None
    for number, raw in enumerate(batches):
        batch = prepare(raw)
        weight = float(raw["weights"].sum())
        loss, _ = engine(batch)
        if weight:
            total += float(loss) * weight
            count += weight
        if number == 0:
            picture = _picture(engine, batch)
    engine.train()
    total, count = processes.sum([total, count])
    val_loss = total / count
    if log:
        log.scalars(step, {"val_loss": val_loss})
        if picture is not None:
            log.image(step, "reconstruction", picture)
    return val_loss


def _picture(engine: DeepSpeedEngine, batch: Batch) -> Tensor | None:
    """Return originals above predictions, `3 x H x W` in 0..1; None for objectives that do not predict pixels."""
    few = {key: value[:_NUM_PICTURES] for key, value in batch.items()}
    images = engine.module.reconstruct(few)
    if not images:
        return None
    rows = torch.cat([images["target"], images["prediction"]])
    return make_grid(denormalize(rows).clamp(0, 1).float().cpu(), nrow=len(images["target"]), padding=1, pad_value=1.0)
