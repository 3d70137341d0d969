"""The order of the stream of training samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from arvis_scale.data.order import SampleOrder, micro_batch_positions, sample_seeds
from arvis_scale.data.sample_sets import ListedSamples, ShardwiseSamples
from arvis_scale.data.subsets import nested_subset

SIZES = np.array([5, 3, 7, 1, 6])  # samples of five shards


def _listed(*samples: int) -> ListedSamples:
    return ListedSamples(np.array(samples or range(22), dtype=np.int64), SIZES)


def test_each_sample_comes_once_in_every_epoch_in_another_order() -> None:
    chosen = _listed(*nested_subset(22, 17, seed=0))
    epochs = SampleOrder(chosen, seed=5, window_shards=2).samples(np.arange(3 * 17)).reshape(3, 17)
    assert all(sorted(epoch) == sorted(chosen.listed()) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


def test_any_position_is_reached_directly() -> None:
    stream = SampleOrder(_listed(), seed=5, window_shards=2).samples(np.arange(100))
    positions = np.array([93, 2, 41, 16, 17])
    assert SampleOrder(_listed(), seed=5, window_shards=2).samples(positions).tolist() == stream[positions].tolist()


def test_the_order_is_what_it_has_always_been() -> None:
    # Pinned: a change here, ours or numpy's, would break the resuming of runs and the nesting of old subsets.
    assert nested_subset(8, None, seed=0).tolist() == [2, 3, 1, 0, 4, 6, 5, 7]
    small = ListedSamples(np.arange(8), np.array([3, 3, 2]))
    epochs = SampleOrder(small, seed=0).samples(np.arange(16)).reshape(2, 8)
    assert epochs.tolist() == [[1, 3, 2, 4, 0, 5, 6, 7], [7, 3, 6, 2, 1, 4, 0, 5]]
    windows = SampleOrder(small, seed=0, window_shards=1).samples(np.arange(16)).reshape(2, 8)
    assert windows.tolist() == [[0, 1, 2, 5, 3, 4, 7, 6], [2, 0, 1, 5, 3, 4, 7, 6]]
    assert sample_seeds(0, np.arange(3)).tolist() == [6017775124710473527, 313702574736366215, 7774984521324166428]


def test_in_one_window_the_order_knows_of_no_shards() -> None:
    samples = nested_subset(22, 17, seed=0)
    one_shard = ListedSamples(samples, np.array([22]))
    stream = SampleOrder(_listed(*samples), seed=3, window_shards=5).samples(np.arange(34))
    assert stream.tolist() == SampleOrder(one_shard, seed=3, window_shards=1).samples(np.arange(34)).tolist()


@pytest.mark.parametrize("window_shards", [1, 2, 3])
def test_a_window_holds_the_samples_of_few_shards_well_mixed(window_shards: int) -> None:
    sizes = np.full(7, 100)
    order = SampleOrder(ShardwiseSamples.whole(sizes, seed=0), seed=1, window_shards=window_shards)
    shards = order.samples(np.arange(700)) // 100
    num_windows = -(-7 // window_shards)
    changes = [0, *(np.flatnonzero([not set(shards[:i]) & set(shards[i:]) for i in range(1, 700)]) + 1).tolist(), 700]
    windows = [set(shards[start:end].tolist()) for start, end in itertools.pairwise(changes)]
    assert len(windows) == num_windows and max(map(len, windows)) <= window_shards
    assert min(map(len, windows)) >= 7 // num_windows  # no window of leftovers
    for (start, end), window in zip(itertools.pairwise(changes), windows, strict=True):
        half = shards[start : (start + end) // 2]
        assert all(abs((half == shard).sum() - 50) < 30 for shard in window)  # binomial: 5 standard deviations


def test_shards_without_a_chosen_sample_take_no_place_in_a_window() -> None:
    order = SampleOrder(_listed(0, 1, 20, 21), seed=0, window_shards=2)  # of the first shard and the last
    epochs = order.samples(np.arange(40)).reshape(10, 4)
    assert any((epoch[:2] < 5).sum() == 1 for epoch in epochs)  # both shards share the window


def test_dropping_leaves_out_other_samples_in_every_epoch() -> None:
    order = SampleOrder(_listed(), seed=0, window_shards=2, epoch_multiple=4)
    assert (order.epoch_length, order.num_dropped) == (20, 2)
    epochs = order.samples(np.arange(200)).reshape(10, 20)
    assert all(len(set(epoch)) == 20 for epoch in epochs.tolist())
    assert len({tuple(set(range(22)) - set(epoch)) for epoch in epochs.tolist()}) > 5


def test_dropping_everything_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="nothing of 22 images with global_batch_size=64"):
        SampleOrder(_listed(), seed=0, epoch_multiple=64)


def test_epochs_are_counted_from_zero() -> None:
    order = SampleOrder(_listed(), seed=0, epoch_multiple=4)
    assert order.epochs(np.array([0, 19, 20, 399, 400])).tolist() == [0, 0, 1, 19, 20]


def test_replacements_are_of_the_set_and_differ_by_position_and_attempt() -> None:
    chosen = _listed(0, 2, 4, 6, 9, 15, 21)
    order = SampleOrder(chosen, seed=0)
    drawn = [[order.replacement(position, attempt) for attempt in range(1, 50)] for position in (0, 7)]
    assert {sample for row in drawn for sample in row} == set(chosen.listed().tolist())
    assert drawn[0] != drawn[1]
    assert SampleOrder(chosen, seed=0).replacement(7, 3) == drawn[1][2]


def test_an_empty_subset_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        SampleOrder(ListedSamples(np.arange(0), SIZES), seed=0)


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
