"""Subsets and the order of the stream."""

from __future__ import annotations

import numpy as np
import pytest

from arvis_scale.data.order import SampleOrder, micro_batch_positions, sample_seeds
from arvis_scale.data.subsets import held_out_fraction, nested_subset


def test_subsets_of_one_seed_are_nested() -> None:
    large = nested_subset(100, 60, seed=3)
    assert nested_subset(100, 20, seed=3).tolist() == large[:20].tolist()
    assert len(set(large.tolist())) == 60
    assert nested_subset(100, 60, seed=4).tolist() != large.tolist()


def test_no_number_of_unique_images_takes_all() -> None:
    assert sorted(nested_subset(10, None, seed=0).tolist()) == list(range(10))


@pytest.mark.parametrize("unique_images", [0, 1_001])
def test_more_unique_images_than_there_are_is_refused_with_both_numbers(unique_images: int) -> None:
    with pytest.raises(ValueError, match=f"{unique_images:,}.*1,000"):
        nested_subset(1000, unique_images, seed=0)


def test_the_held_out_part_is_disjoint_and_seeded() -> None:
    training, held_out = held_out_fraction(200, 0.1, seed=0)
    assert len(held_out) == 20
    assert sorted([*training, *held_out]) == list(range(200))
    assert held_out.tolist() != held_out_fraction(200, 0.1, seed=1)[1].tolist()


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.001])
def test_a_held_out_fraction_that_leaves_a_part_empty_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="leaves one part empty"):
        held_out_fraction(20, fraction, seed=0)


def test_each_sample_comes_once_in_every_epoch_in_another_order() -> None:
    subset = nested_subset(50, 17, seed=0)
    stream = SampleOrder(subset, seed=5).samples(np.arange(3 * 17))
    epochs = stream.reshape(3, 17)
    assert all(sorted(epoch) == sorted(subset) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


def test_any_position_is_reached_directly() -> None:
    subset = np.arange(17)
    stream = SampleOrder(subset, seed=5).samples(np.arange(100))
    positions = np.array([93, 2, 41, 16, 17])
    assert SampleOrder(subset, seed=5).samples(positions).tolist() == stream[positions].tolist()


def test_the_order_is_what_it_has_always_been() -> None:
    # Pinned: a change here, ours or numpy's, would break the resuming of runs and the nesting of old subsets.
    assert nested_subset(8, None, seed=0).tolist() == [2, 3, 1, 0, 4, 6, 5, 7]
    assert SampleOrder(np.arange(8), seed=0).samples(np.arange(16)).tolist() == [
        1,
        3,
        2,
        4,
        0,
        5,
        6,
        7,
        7,
        3,
        6,
        2,
        1,
        4,
        0,
        5,
    ]
    assert sample_seeds(0, np.arange(3)).tolist() == [6017775124710473527, 313702574736366215, 7774984521324166428]


def test_an_empty_subset_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        SampleOrder(np.arange(0), seed=0)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_cut_a_global_batch_into_consecutive_micro_batches(world_size: int) -> None:
    micro_batch_size = 8 // world_size // 2  # two accumulation steps
    ranks = [
        list(micro_batch_positions(8, 24, micro_batch_size=micro_batch_size, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    stream = [positions for step in zip(*ranks, strict=True) for positions in step]  # [step * accumulation][rank]
    assert np.concatenate(stream).tolist() == list(range(8, 24))


def test_seeds_differ_by_position_and_by_run() -> None:
    positions = np.arange(10_000)
    seeds = np.concatenate([sample_seeds(0, positions), sample_seeds(1, positions)])
    assert seeds.dtype == np.int64 and seeds.min() >= 0
    assert len(np.unique(seeds)) == 20_000
    bits = (seeds[:, None] >> np.arange(63)) & 1
    assert np.abs(bits.mean(0) - 0.5).max() < 0.02  # every bit is a fair coin
