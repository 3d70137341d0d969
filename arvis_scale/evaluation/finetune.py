"""Fine-tuning: an encoder and a linear classifier trained together on labelled images, from end to end.

One process, one device. The recipe is D-iGPT's (arXiv 2312.02147), which is that of BEiT (arXiv 2106.08254) and MAE:
AdamW with layer-wise learning rates, stochastic depth, RandAugment, random erasing, mixup and cutmix.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arvis_scale.config.finetune import FinetuneConfig
from arvis_scale.data.finetune_augment import Mixing, erase, mix
from arvis_scale.models.encoder import Backbone
from arvis_scale.models.images import normalize
from arvis_scale.models.vit import Block, layer_norm

Batch = dict[str, Tensor]

_logger = logging.getLogger(__name__)


class Classifier(nn.Module):
    """Means over the tokens of the last layer, a LayerNorm, a linear map."""

    def __init__(self, encoder: Backbone, num_classes: int, *, drop_path: float) -> None:
        """Take over `encoder` and set its stochastic depth: linear from 0 to `drop_path` over depth."""
        super().__init__()
        self.encoder = encoder
        for layer, block in enumerate(encoder.blocks):
            assert isinstance(block, Block)
            block.drop_path = drop_path * layer / max(encoder.depth - 1, 1)
        self.norm = layer_norm(encoder.width)
        self.head = nn.Linear(encoder.width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor, sample_seeds: Tensor | None = None) -> Tensor:
        """Normalized images `B x 3 x H x W` -> logits `B x C`; `sample_seeds` (`B`) are needed in training mode."""
        [tokens] = self.encoder.layer_outputs(images, [self.encoder.depth], sample_seeds)
        return self.head(self.norm(tokens.mean(dim=1)))


def parameter_groups(model: Classifier, *, layer_decay: float, weight_decay: float) -> list[dict[str, object]]:
    """Return AdamW's groups: `lr_scale` is 1 for the classifier, and `layer_decay` times that of the layer above below.

    What comes before the first layer counts as a layer of its own. 1-d parameters have no weight decay.
    """
    depth = model.encoder.depth
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        level = 0
        if name.startswith("encoder.blocks."):
            level = 1 + int(name.split(".")[2])
        elif not name.startswith("encoder."):
            level = depth + 1
        groups.setdefault((level, parameter.dim() > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr_scale": layer_decay ** (depth + 1 - level),
            "weight_decay": weight_decay if is_decayed else 0.0,
        }
        for (level, is_decayed), parameters in groups.items()
    ]


def learning_rate(config: FinetuneConfig, course: float) -> float:
    """Return the classifier's learning rate after the fraction `course` of all steps: linear warm-up, then a cosine."""
    peak = config.learning_rate_per_256 * config.batch_size / 256
    warmup = config.warmup_epochs / config.epochs
    if course < warmup:
        return peak * course / warmup
    fallen = (course - warmup) / max(1 - warmup, 1e-12)
    return config.last_learning_rate + (peak - config.last_learning_rate) * (1 + math.cos(math.pi * fallen)) / 2


def finetune(
    model: Classifier,
    batches: Iterator[Batch],
    config: FinetuneConfig,
    *,
    num_steps: int,
    device: torch.device,
    precision: str = "fp32",
) -> None:
    """Train `model` for `num_steps` optimizer steps on `batches`, micro batches of the loader; it ends in eval mode."""
    groups = parameter_groups(model, layer_decay=config.layer_decay, weight_decay=config.weight_decay)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999))
    num_micro_batches = config.batch_size // config.micro_batch_size
    started = time.monotonic()
    model.to(device).train()
    for step in range(num_steps):
        total = torch.zeros((), device=device)
        for _ in range(num_micro_batches):
            images, targets, seeds = _augmented(next(batches), config, model.head.out_features)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = model(images.to(device), seeds.to(device))
            loss = F.cross_entropy(logits.float(), targets.to(device)) / num_micro_batches
            loss.backward()
            total += loss.detach()
        rate = learning_rate(config, step / num_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % max(1, num_steps // 20) == 0:
            seconds = (time.monotonic() - started) / (step + 1) * (num_steps - step - 1)
            left = timedelta(seconds=round(seconds))
            _logger.info("fine-tuning: step %d of %d, loss %.4f, %s left", step + 1, num_steps, float(total), left)
    model.eval()


@torch.inference_mode()
def predictions(
    model: Classifier, batches: Iterator[Batch], device: torch.device
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the class that `model` gives each image of the evaluation `batches`, in fp32, and its label."""
    model.to(device).eval()
    predicted, labels = [], []
    for batch in batches:
        predicted.append(model(normalize(batch["images"].to(device))).argmax(dim=1).cpu().numpy())
        labels.append(batch["labels"].numpy())
    return np.concatenate(predicted), np.concatenate(labels)


def _augmented(batch: Batch, config: FinetuneConfig, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return images `B x 3 x H x W`, targets `B x C` and seeds `B` of a batch whose RandAugment is done."""
    images, labels, seeds = normalize(batch["images"]), batch["labels"], batch["sample_seeds"]
    if config.erasing:
        erase(images, seeds, config.erasing)
    if config.is_mixed:
        mixing = Mixing(num_classes, config.mixup, config.cutmix, label_smoothing=config.label_smoothing)
        images, targets = mix(images, labels, seeds, mixing)
        return images, targets, seeds
    targets = F.one_hot(labels, num_classes).float()
    return images, targets * (1 - config.label_smoothing) + config.label_smoothing / num_classes, seeds
