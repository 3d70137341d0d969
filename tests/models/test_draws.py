"""Random draws that depend on the sample alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from arvis_scale.models import draws

SEEDS = torch.arange(20_000)


def splitmix64(value: int) -> int:
    """The published finaliser, in whole numbers of any size."""
    bits = (1 << 64) - 1
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & bits
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & bits
    return value ^ (value >> 31)


def test_uniform_is_the_hash_computed_in_whole_numbers() -> None:
    gamma, bits = 0x9E3779B97F4A7C15, (1 << 64) - 1
    seeds = [0, 1, -1, 12345678901234567, -(2**63), 2**63 - 1]
    got = draws.uniform(torch.tensor(seeds), stream=1007, num=3)
    for row, seed in zip(got.tolist(), seeds, strict=True):
        sample = splitmix64((seed + gamma) & bits)
        stream = splitmix64((sample + 1007 * gamma) & bits)
        expected = [(splitmix64((stream + count * gamma) & bits) >> 40) / 2**24 for count in (1, 2, 3)]
        assert row == expected


def test_uniform_fills_the_unit_interval_evenly() -> None:
    sample = draws.uniform(SEEDS, stream=3, num=4)
    assert sample.min() >= 0 and sample.max() < 1
    counts = torch.histc(sample, bins=10, min=0, max=1)
    # 80,000 draws in 10 bins: one standard deviation is 85.
    assert (counts - 8000).abs().max() < 5 * 85


def test_streams_counters_and_neighbouring_seeds_are_uncorrelated() -> None:
    first = draws.uniform(SEEDS, stream=1000, num=2)
    others = {
        "next stream": draws.uniform(SEEDS, stream=1001, num=2)[:, 0],
        "next counter": first[:, 1],
        "next seed": draws.uniform(SEEDS + 1, stream=1000, num=1)[:, 0],
    }
    for name, other in others.items():
        correlation = torch.corrcoef(torch.stack([first[:, 0], other]))[0, 1].item()
        # One standard deviation is 1 / sqrt(20000) = 0.007.
        assert abs(correlation) < 0.035, f"{name}: {correlation}"


def test_draws_of_a_sample_depend_on_no_other_sample() -> None:
    whole = draws.uniform(SEEDS[:64], stream=5, num=3)
    split = torch.cat([draws.uniform(part, stream=5, num=3) for part in SEEDS[:64].split(7)])
    assert torch.equal(whole, split)
    assert torch.equal(draws.uniform(SEEDS[:64].flip(0), stream=5, num=3), whole.flip(0))


def test_keep_scale_drops_at_the_rate_and_keeps_the_mean() -> None:
    scale = draws.keep_scale(SEEDS, stream=1000, rate=0.2, num=2)
    assert set(scale.unique().tolist()) == {0.0, 1.25}
    assert abs((scale == 0).float().mean().item() - 0.2) < 0.01
    assert abs(scale.mean().item() - 1) < 0.0125


def test_prefix_lengths_are_uniform_and_never_empty_or_whole() -> None:
    lengths = draws.prefix_lengths(SEEDS, num_tokens=5)
    counts = torch.bincount(lengths, minlength=6).tolist()
    assert counts[0] == counts[5] == 0
    # 20,000 draws of 4 values: one standard deviation is 61.
    assert all(abs(count - 5000) < 5 * 61 for count in counts[1:5])


@pytest.mark.parametrize(("num_orders", "num_blocks"), [(16, 16), (5, 16), (1, 4), (9, 9)])
def test_block_orders_are_permutations_without_a_common_prefix_and_raster_first(
    num_orders: int, num_blocks: int
) -> None:
    orders = draws.block_orders(num_orders, num_blocks)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(num_blocks).expand(num_orders, num_blocks))
    assert orders[0].tolist() == list(range(num_blocks))
    prefixes = [tuple(order[:length]) for order in orders.tolist() for length in range(1, num_blocks + 1)]
    assert len(set(prefixes)) == num_orders * num_blocks
    assert torch.equal(orders, draws.block_orders(num_orders, num_blocks))


def test_block_orders_are_not_shifts_of_one_another() -> None:
    orders = draws.block_orders(16, 16)
    followers = {tuple(pair) for order in orders[1:].tolist() for pair in pairwise(order)}
    # 15 random orders of 16 blocks hold 225 pairs of the 240 possible; about 147 differ.
    assert len(followers) > 120


def test_choices_of_steps_are_uniform() -> None:
    choices = [draws.choice_of_step(torch.tensor(step), 4) for step in range(2000)]
    assert all(choice.shape == (1,) for choice in choices)
    # 2,000 draws of 4 values: one standard deviation is 19.
    assert (torch.cat(choices).bincount(minlength=4) - 500).abs().max() < 5 * 19


def test_segment_orders_are_permutations_and_all_equally_likely() -> None:
    orders = draws.segment_orders(SEEDS, num_segments=3)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(3).expand(len(SEEDS), 3))
    _, counts = orders.unique(dim=0, return_counts=True)
    # 20,000 draws of 6 orders: one standard deviation is 53.
    assert len(counts) == 6 and (counts - 20_000 / 6).abs().max() < 5 * 53
