"""The attentive probe computes cross-attention, and finds what an average over tokens hides."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from arvis_scale.data.build import build_shards
from arvis_scale.data.shards import open_shards
from arvis_scale.evaluation.attentive_probe import AttentivePool, AttentiveProtocol, attentive_probe, num_heads_of
from arvis_scale.evaluation.features import averaged_tokens
from arvis_scale.evaluation.frozen_tokens import (
    ComputedTokens,
    StandardizedTokens,
    StoredTokens,
    channel_statistics,
    stored_if_small,
)
from arvis_scale.evaluation.linear_probe import linear_probe
from arvis_scale.models.build import build_objective

CPU = torch.device("cpu")
SHORT = AttentiveProtocol(learning_rates=(1e-4, 1e-2), epochs=12, warmup_epochs=2)


def needles(num_images: int, seed: int) -> StoredTokens:
    """Tokens of noise, 9 an image, of which one at a random place has a mark and its class in its other channels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, num_images)
    tokens = generator.normal(size=(num_images, 9, 16)).astype(np.float32)
    places = generator.integers(0, 9, num_images)
    tokens[np.arange(num_images), places, 0] = 8.0
    tokens[np.arange(num_images), places, 1] = np.where(labels == 1, 1.5, -1.5)
    return StoredTokens(torch.from_numpy(tokens), labels, CPU)


def cross_attention(probe: AttentivePool, tokens: Tensor) -> Tensor:
    """Return the logits in the usual order: keys and values of every token, one head and one image at a time."""
    num_heads, channels = probe.query.shape
    logits = []
    for image in tokens:
        keys, values = image @ probe.key.weight.T, image @ probe.value.weight.T  # n x D
        pooled = []
        for head in range(num_heads):
            own = slice(head * channels, (head + 1) * channels)
            attention = (keys[:, own] @ probe.query[head] / math.sqrt(channels)).softmax(dim=0)
            pooled.append(attention @ values[:, own])
        logits.append(probe.head(torch.cat(pooled)))
    return torch.stack(logits)


@pytest.mark.parametrize("num_heads", [1, 4])
def test_logits_and_gradients_are_those_of_cross_attention(num_heads: int) -> None:
    torch.manual_seed(0)
    probe = AttentivePool(width=16, num_heads=num_heads, num_classes=3).double()
    tokens, labels = 3 * torch.randn(5, 7, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(probe(tokens), cross_attention(probe, tokens))
    found, expected = (
        torch.autograd.grad(F.cross_entropy(function(tokens), labels), list(probe.parameters()))
        for function in (probe, lambda tokens: cross_attention(probe, tokens))
    )
    torch.testing.assert_close(found, expected)


def test_it_finds_what_an_average_over_tokens_hides() -> None:
    train, test = needles(600, seed=0), needles(400, seed=1)
    result = attentive_probe(train, test, num_heads=1, protocol=AttentiveProtocol((1e-3, 1e-2), epochs=30))
    pooled = linear_probe(train.tokens.mean(dim=1).numpy(), train.labels, test.tokens.mean(dim=1).numpy(), test.labels)
    assert result.accuracy > 0.95 > 0.85 > pooled.accuracy
    assert result.accuracy == result.correct / 400
    assert result.num_train == 600 and result.num_features == 16


def test_the_learning_rate_is_the_best_on_held_out_images() -> None:
    train, test = needles(600, seed=0), needles(400, seed=1)
    both = attentive_probe(train, test, num_heads=1, protocol=SHORT)
    alone = {
        rate: attentive_probe(train, test, num_heads=1, protocol=AttentiveProtocol((rate,), epochs=12, warmup_epochs=2))
        for rate in SHORT.learning_rates
    }
    best = max(alone, key=lambda rate: alone[rate].held_out_accuracy)
    assert alone[1e-4].held_out_accuracy != alone[1e-2].held_out_accuracy
    # Side by side with others, a probe is trained as alone.
    assert both == alone[best]


def test_labels_without_relation_give_chance() -> None:
    train, test = needles(300, seed=0), needles(400, seed=1)
    shuffled = StoredTokens(train.tokens, np.random.default_rng(2).permutation(train.labels), CPU)
    result = attentive_probe(shuffled, test, num_heads=1, protocol=SHORT)
    assert 0.35 < result.accuracy < 0.65


def test_the_schedule_goes_from_the_first_rate_through_the_peak_to_the_last() -> None:
    protocol = AttentiveProtocol()
    rates = [protocol.learning_rate(1e-2, epoch) for epoch in (0, 5, 10, 55, 100)]
    assert rates == pytest.approx([1e-4, (1e-4 + 1e-2) / 2, 1e-2, (1e-2 + 1e-5) / 2, 1e-5])


def test_batches_are_the_published_ones_or_as_many_as_sixteen_an_epoch() -> None:
    assert [AttentiveProtocol().batch_size(num) for num in (1_281_167, 10_000, 800, 3)] == [4096, 512, 32, 1]


def test_heads_are_sixteen_where_the_encoder_is_wide_enough() -> None:
    widths = {16: 1, 32: 2, 64: 4, 192: 4, 768: 16, 1024: 16, 1280: 16, 4096: 16}
    assert {width: num_heads_of(width) for width in widths} == widths


def test_statistics_are_those_of_all_tokens_of_all_images() -> None:
    tokens = needles(700, seed=0)  # several chunks
    mean, std = channel_statistics(tokens, eps=1e-6)
    flat = tokens.tokens.double().flatten(0, 1)
    torch.testing.assert_close(mean.double(), flat.mean(dim=0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(std.double(), (flat.var(dim=0, correction=0) + 1e-6).sqrt(), rtol=1e-6, atol=1e-6)
    [(standardized, labels)] = StandardizedTokens(tokens, mean, std).batches(np.array([3, 1]), 5)
    torch.testing.assert_close(standardized, (tokens.tokens[[3, 1]] - mean) / std)
    assert labels.tolist() == tokens.labels[[3, 1]].tolist()


def test_tokens_kept_in_memory_are_those_computed_anew(tmp_path: Path) -> None:
    build_shards("digits", tmp_path / "digits")
    split = open_shards(tmp_path / "digits").split("train")
    torch.manual_seed(0)
    options = {"mask_ratio": 0.75}
    encoder = build_objective("mae", preset="nano", image_size=32, patch_size=8, options=options).encoder.eval()
    indices = np.arange(3, 603)
    computed = ComputedTokens(averaged_tokens(encoder), split, indices, image_size=32, device=CPU)
    stored = stored_if_small(computed, max_bytes=600 * 16 * 32 * 4)
    assert isinstance(stored, StoredTokens) and stored.tokens.shape == (600, 16, 32)
    assert stored_if_small(computed, max_bytes=600 * 16 * 32 * 4 - 1) is computed
    places = np.array([599, 0, 17, 300, 5])
    assert stored.labels.tolist() == split.labels[indices].tolist()
    for (kept, labels), (anew, others) in zip(stored.batches(places, 2), computed.batches(places, 2), strict=True):
        torch.testing.assert_close(kept, anew)
        assert labels.tolist() == others.tolist()


def test_tokens_are_the_means_of_the_last_six_layers() -> None:
    torch.manual_seed(0)
    for preset, layers in (("nano", [1, 2]), ("Ti", [7, 8, 9, 10, 11, 12])):
        encoder = build_objective("mae", preset=preset, image_size=32, patch_size=16, options={}).encoder.eval()
        images = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            expected = torch.stack(encoder.layer_outputs(images, layers)).mean(dim=0)
            torch.testing.assert_close(averaged_tokens(encoder)(images), expected)
