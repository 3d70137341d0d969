"""The loss on held-out images, and pictures of what the model predicts for a few of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from arvis_scale.engine.distributed import Processes
from arvis_scale.engine.logs.metrics_log import MetricsLog
from arvis_scale.engine.parallel.train_engine import Batch, TrainEngine


@torch.no_grad()
def validate(
    engine: TrainEngine,
    batches: Iterable[Batch],
    prepare: Callable[[Batch], Batch],
    processes: Processes,
    log: MetricsLog,
    step: int,
) -> float | None:
    """Return the mean loss over all images of all processes' `batches`, every image weighed once, and log it.

    None where there are none.

    All processes bring the same number of batches (ZeRO-3 gathers parameters in every forward pass); images that only
    fill up a batch carry weight 0.
    """
    total, count = 0.0, 0.0
    pictures: dict[str, torch.Tensor] = {}
    for number, raw in enumerate(batches):
        batch = prepare(raw) if engine.reads_batches else raw
        weight = float(raw["weights"].sum())
        loss = engine.evaluate(batch)
        if weight and engine.holds_losses:
            total += float(loss) * weight
            count += weight
        if number == 0:
            pictures = engine.pictures(batch)
    total, count = processes.sum([total, count])
    if not count:
        return None
    val_loss = total / count
    log.scalars(step, {"val_loss": val_loss})
    log.images(step, pictures)
    return val_loss
