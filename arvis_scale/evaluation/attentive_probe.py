"""The attentive probe: one learned query that attends to the frozen tokens of an image, and a linear classifier.

As in AIM (arXiv 2401.08541, section 3.3) and XTRA (arXiv 2411.15648, section 4), on tokens that are computed once from
the centered image: there is no augmentation. So the statistics of its BatchNorm are those of all training tokens, not
of a batch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arvis_scale.evaluation.frozen_tokens import CHUNK, StandardizedTokens, Tokens, channel_statistics
from arvis_scale.evaluation.probe_result import ProbeResult, hold_out_fifth

BATCH_NORM_EPS = 1e-6

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AttentiveProtocol:
    """How the probe is trained: AdamW, gradients clipped, a cosine schedule whose peak is swept."""

    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    first_learning_rate: float = 1e-4
    last_learning_rate: float = 1e-5
    epochs: int = 100
    warmup_epochs: int = 10
    max_batch_size: int = 4096
    # Fewer images than make so many batches of that size are cut into smaller ones.
    min_steps_per_epoch: int = 16
    weight_decay: float = 0.1
    clip_grad_norm: float = 3.0

    def batch_size(self, num_images: int) -> int:
        """Return the number of images in a batch, a power of two."""
        largest = max(1, min(self.max_batch_size, num_images // self.min_steps_per_epoch))
        return 1 << (largest.bit_length() - 1)

    def learning_rate(self, peak: float, epoch: float) -> float:
        """Return the learning rate after `epoch` epochs, a fraction of one included."""
        if epoch < self.warmup_epochs:
            return self.first_learning_rate + (peak - self.first_learning_rate) * epoch / self.warmup_epochs
        course = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        return self.last_learning_rate + (peak - self.last_learning_rate) * (1 + math.cos(math.pi * course)) / 2


class AttentivePool(nn.Module):
    """Multi-head cross-attention of one learned query, without a map of its own, then a linear classifier.

    A query that is the same for all images needs no keys and values of single tokens: head h scores a token x by
    `(W_k,h^T q_h) . x`, and values are mapped after they were averaged. The outcome is that of the usual order of
    products, at `heads / width` of its cost.
    """

    def __init__(self, *, width: int, num_heads: int, num_classes: int) -> None:
        """`num_heads` divides `width`, the channels of a token."""
        super().__init__()
        assert width % num_heads == 0, f"{num_heads} heads of {width} channels"
        self.query = nn.Parameter(0.02 * torch.randn(num_heads, width // num_heads))
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.head = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Standardized tokens `B x n x D` -> logits `B x C`."""
        return logits_of([self], tokens)[0]

    def scorers(self) -> Tensor:
        """Return what a token's product with is its score for each head, `heads x D`."""
        num_heads, channels = self.query.shape
        keys = self.key.weight.view(num_heads, channels, -1)
        return torch.einsum("hd,hdc->hc", self.query, keys) * channels**-0.5

    def classify(self, averaged: Tensor) -> Tensor:
        """Return the logits `B x C` of the tokens' averages by head, `B x heads x D`."""
        num_heads, channels = self.query.shape
        values = self.value.weight.view(num_heads, channels, -1)
        return self.head(torch.einsum("bhc,hdc->bhd", averaged, values).flatten(1))


def logits_of(probes: Sequence[AttentivePool], tokens: Tensor) -> list[Tensor]:
    """Return the logits `B x C` of each of some probes of one shape; together they read the tokens once."""
    scorers = torch.cat([probe.scorers() for probe in probes])
    attention = F.linear(tokens, scorers).transpose(1, 2).softmax(dim=2)  # B x (probes * heads) x n
    averaged = (attention @ tokens).split(len(probes[0].query), dim=1)  # B x heads x D each
    return [probe.classify(own) for probe, own in zip(probes, averaged, strict=True)]


def num_heads_of(width: int) -> int:
    """Return 16, the published number at ViT-B and H, or fewer where heads would have under 16 channels."""
    return math.gcd(16, max(1, width // 16))


def attentive_probe(
    train: Tokens, test: Tokens, *, num_heads: int, protocol: AttentiveProtocol | None = None, seed: int = 0
) -> ProbeResult:
    """Fit on the tokens of `train` and measure on those of `test`.

    The learning rate is the best on a seeded fifth of the training images, the lowest among equals, and the probe is
    fitted again on all. On one processor with one number of threads the outcome is a function of the arguments.
    """
    protocol = protocol or AttentiveProtocol()
    mean, std = channel_statistics(train, BATCH_NORM_EPS)
    train, test = StandardizedTokens(train, mean, std), StandardizedTokens(test, mean, std)
    num_classes = int(max(train.labels.max(), test.labels.max())) + 1

    def fitted(places: npt.NDArray[np.int64], learning_rates: Sequence[float]) -> list[AttentivePool]:
        probes = [_new_probe(len(mean), num_heads, num_classes, seed).to(mean.device) for _ in learning_rates]
        _fit(probes, learning_rates, train, places, protocol, seed)
        return probes

    fit, held_out = hold_out_fifth(train.labels, seed)
    candidates = _predictions(fitted(fit, protocol.learning_rates), train, held_out)
    scores = [float((predicted == train.labels[held_out]).mean()) for predicted in candidates]
    best = int(np.argmax(scores))
    probes = fitted(np.arange(len(train.labels)), [protocol.learning_rates[best]])
    [predicted] = _predictions(probes, test, np.arange(len(test.labels)))
    return ProbeResult.of_predictions(
        predicted,
        test.labels,
        chosen={"learning_rate": protocol.learning_rates[best]},
        held_out_accuracy=scores[best],
        num_train=len(train.labels),
        num_features=len(mean),
    )


def _new_probe(width: int, num_heads: int, num_classes: int, seed: int) -> AttentivePool:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AttentivePool(width=width, num_heads=num_heads, num_classes=num_classes)


def _fit(
    probes: Sequence[AttentivePool],
    peaks: Sequence[float],
    tokens: Tokens,
    places: npt.NDArray[np.int64],
    protocol: AttentiveProtocol,
    seed: int,
) -> None:
    """Train `probes` side by side on the same batches, each with its own peak learning rate.

    An epoch leaves out the images that do not fill a batch, others every time.
    """
    optimizers = [
        torch.optim.AdamW(probe.parameters(), weight_decay=protocol.weight_decay, fused=True) for probe in probes
    ]
    batch_size = protocol.batch_size(len(places))
    chunk = min(batch_size, CHUNK)
    num_steps = len(places) // batch_size
    for epoch in range(protocol.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(places)[: num_steps * batch_size]
        chunks = tokens.batches(order, chunk)
        for step in range(num_steps):
            for x, labels in islice(chunks, batch_size // chunk):
                losses = [F.cross_entropy(logits, labels, reduction="sum") for logits in logits_of(probes, x)]
                (torch.stack(losses).sum() / batch_size).backward()
            for probe, optimizer, peak in zip(probes, optimizers, peaks, strict=True):
                nn.utils.clip_grad_norm_(probe.parameters(), protocol.clip_grad_norm)
                optimizer.param_groups[0]["lr"] = protocol.learning_rate(peak, epoch + step / num_steps)
                optimizer.step()
                optimizer.zero_grad()
        if (epoch + 1) % 10 == 0:
            _logger.info("attentive probe: %d of %d epochs, %d learning rates", epoch + 1, protocol.epochs, len(peaks))


@torch.no_grad()
def _predictions(
    probes: Sequence[AttentivePool], tokens: Tokens, places: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.int64]]:
    """Return the class that each probe gives each of the images `places`."""
    found = [
        [logits.argmax(dim=1).cpu().numpy() for logits in logits_of(probes, x)]
        for x, _ in tokens.batches(places, CHUNK)
    ]
    return [np.concatenate(of_probe) for of_probe in zip(*found, strict=True)]
