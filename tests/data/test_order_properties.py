"""What holds of the order for any shards, subset, window, layout, epoch end and resume: exactly once, same order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arvis_scale.data.apportionment import apportion
from arvis_scale.data.mixing import MixedOrder
from arvis_scale.data.order import SampleOrder, micro_batch_positions
from arvis_scale.data.sample_sets import ListedSamples, SampleSet, ShardwiseSamples

settings.register_profile("data", deadline=None, derandomize=True)
settings.load_profile("data")

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12).map(lambda sizes: np.array(sizes, dtype=np.int64))


@st.composite
def sample_sets(draw: st.DrawFn) -> tuple[np.ndarray, SampleSet]:
    """Shard sizes, and a listed set in any order, a whole split, or a part of every shard."""
    sizes, seed = draw(SIZES), draw(st.integers(0, 3))
    num_samples = draw(st.integers(1, int(sizes.sum())))
    kind = draw(st.sampled_from(["listed", "whole", "shardwise", "rest"]))
    if kind == "listed":
        order = draw(st.permutations(range(int(sizes.sum()))))
        return sizes, ListedSamples(np.array(order[:num_samples]), sizes)
    whole = ShardwiseSamples.whole(sizes, seed)
    if kind == "shardwise":
        return sizes, whole.first(num_samples)
    return sizes, whole.without(whole.first(num_samples - 1)) if kind == "rest" else whole


@dataclass
class Stream:
    """An order as its parameters say, so that every process can make its own."""

    sizes: np.ndarray
    chosen: SampleSet
    seed: int
    window_shards: int
    epoch_multiple: int

    def order(self) -> SampleOrder:
        return SampleOrder(self.chosen, self.seed, window_shards=self.window_shards, epoch_multiple=self.epoch_multiple)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    sizes, chosen = draw(sample_sets())
    epoch_multiple = draw(st.integers(1, len(chosen)))
    return Stream(sizes, chosen, draw(st.integers(0, 2**40)), draw(st.integers(1, 14)), epoch_multiple)


@given(stream=streams(), epoch=st.integers(0, 10**6))
def test_every_epoch_has_every_sample_at_most_once_and_all_but_the_dropped(stream: Stream, epoch: int) -> None:
    order = stream.order()
    positions = np.arange(order.epoch_length) + epoch * order.epoch_length
    samples = order.samples(positions)
    chosen = set(stream.chosen.listed().tolist())
    assert len(set(samples.tolist())) == order.epoch_length
    assert set(samples.tolist()) <= chosen
    assert order.num_dropped == len(chosen) % stream.epoch_multiple == len(chosen) - order.epoch_length
    assert (order.epochs(positions) == epoch).all()


@given(stream=streams(), positions=st.lists(st.integers(0, 200), min_size=1, max_size=20))
def test_a_position_means_the_same_in_any_company(stream: Stream, positions: list[int]) -> None:
    whole = stream.order().samples(np.arange(201))
    assert stream.order().samples(np.array(positions)).tolist() == whole[positions].tolist()


@given(stream=streams(), start=st.integers(0, 12), step=st.integers(1, 4))
@pytest.mark.parametrize("world_size", [1, 2, 4, 7])
def test_global_batches_are_the_same_on_any_number_of_processes(
    stream: Stream, world_size: int, start: int, step: int
) -> None:
    global_batch_size = 28 * step
    alone = stream.order().samples(np.arange(start * global_batch_size, (start + 2) * global_batch_size))
    ranks = []
    for rank in range(world_size):
        order = stream.order()  # begins in the middle: a resume
        batches = micro_batch_positions(
            start * global_batch_size,
            (start + 2) * global_batch_size,
            micro_batch_size=28 // world_size,
            rank=rank,
            world_size=world_size,
        )
        ranks.append([order.samples(positions) for positions in batches])
    together = [samples for micro_batches in zip(*ranks, strict=True) for samples in micro_batches]
    assert np.concatenate(together).tolist() == alone.tolist()


@given(stream=streams())
def test_at_most_window_shards_are_open_at_a_time(stream: Stream) -> None:
    order = stream.order()
    shards = np.searchsorted(np.cumsum(stream.sizes), order.samples(np.arange(order.epoch_length)), side="right")
    first_and_last = [(np.flatnonzero(shards == shard)[[0, -1]]) for shard in np.unique(shards)]
    for place in range(len(shards)):
        assert sum(first <= place <= last for first, last in first_and_last) <= stream.window_shards


@given(sizes_and_set=sample_sets())
def test_a_set_is_the_sum_of_its_shards(sizes_and_set: tuple[np.ndarray, SampleSet]) -> None:
    sizes, chosen = sizes_and_set
    listed = chosen.listed()
    assert len(set(listed.tolist())) == len(listed) == len(chosen) == chosen.counts.sum()
    shards = np.searchsorted(np.cumsum(sizes), listed, side="right")
    for shard, count in enumerate(chosen.counts.tolist()):
        assert sorted(chosen.of_shards(np.array([shard]))) == sorted(listed[shards == shard])
        assert (shards == shard).sum() == count


@given(sizes=SIZES, seed=st.integers(0, 9), data=st.data())
def test_parts_of_every_shard_are_nested_and_their_rest_is_the_rest(
    sizes: np.ndarray, seed: int, data: st.DataObject
) -> None:
    whole = ShardwiseSamples.whole(sizes, seed)
    large = data.draw(st.integers(0, len(whole)))
    small = data.draw(st.integers(0, large))
    first = whole.first(large)
    taken = set(first.listed().tolist())
    assert len(taken) == large
    assert set(whole.first(small).listed().tolist()) <= taken
    assert sorted([*taken, *whole.without(first).listed().tolist()]) == list(range(len(whole)))
    rest = whole.without(first)
    assert set(rest.first(len(rest) // 2).listed().tolist()) <= set(rest.listed().tolist())


@given(
    parties=st.lists(st.tuples(st.floats(1e-3, 1e3), st.integers(0, 40)), min_size=1, max_size=12),
    data=st.data(),
)
def test_apportioned_images_add_up_stay_within_limits_and_only_grow(
    parties: list[tuple[float, int]], data: st.DataObject
) -> None:
    shares, limits = np.array([share for share, _ in parties]), np.array([limit for _, limit in parties])
    total = data.draw(st.integers(0, int(limits.sum())))
    counts = apportion(total, shares, limits)
    assert counts.sum() == total and (counts >= 0).all() and (counts <= limits).all()
    if total:
        assert (apportion(total - 1, shares, limits) <= counts).all()


@given(parties=st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 40)), min_size=1, max_size=8), data=st.data())
def test_apportioning_gives_image_after_image_to_the_highest_priority(
    parties: list[tuple[int, int]], data: st.DataObject
) -> None:
    shares, limits = np.array([share for share, _ in parties], float), np.array([limit for _, limit in parties])
    total = data.draw(st.integers(0, int(limits.sum())))
    counts = np.zeros_like(limits)
    for _ in range(total):
        counts[np.argmax(np.where(counts < limits, shares / (counts + 0.5), -1))] += 1
    assert apportion(total, shares, limits).tolist() == counts.tolist()


@given(
    weights=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    lengths=st.lists(st.integers(1, 30), min_size=4, max_size=4),
    seed=st.integers(0, 1000),
    block=st.integers(0, 500),
)
def test_every_block_of_a_mix_has_each_share_and_each_data_set_its_own_order(
    weights: list[int], lengths: list[int], seed: int, block: int
) -> None:
    def mixed() -> MixedOrder:
        orders = [SampleOrder(ListedSamples(np.arange(n), np.array([n])), seed) for n in lengths[: len(weights)]]
        return MixedOrder(orders, weights, firsts, seed)

    firsts = np.cumsum([0, *lengths])
    size = sum(weights)
    samples = mixed().samples(np.arange(block * size, (block + 3) * size))
    sources = np.searchsorted(firsts, samples, side="right") - 1
    for own in sources.reshape(3, size):
        assert np.bincount(own, minlength=len(weights)).tolist() == weights
    for part, weight in enumerate(weights):
        alone = SampleOrder(ListedSamples(np.arange(lengths[part]), np.array([lengths[part]])), seed)
        expected = alone.samples(np.arange(block * weight, (block + 3) * weight))
        assert (samples[sources == part] - firsts[part]).tolist() == expected.tolist()
    single = [int(mixed().samples(np.array([position]))[0]) for position in range(block * size, (block + 1) * size)]
    assert single == samples[:size].tolist()
