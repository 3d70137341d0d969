"""Batches of training and evaluation, over ranks, workers and resumes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arvis_scale.data.build import build_shards
from arvis_scale.data.faults import REASONS
from arvis_scale.data.loader import evaluation_batches, training_batches
from arvis_scale.data.order import SampleOrder
from arvis_scale.data.sample_sets import ListedSamples
from arvis_scale.data.shards import ShardedDataset, ShardSplit, open_shards

SUBSET = np.array([3, 1, 4, 15, 9, 2, 6, 5, 35 % 24, 8])  # 10 of the 24 train images

SETTINGS: dict[str, Any] = {
    "image_size": 8,
    "crop_scale": (0.3, 1.0),
    "crop_ratio": (0.75, 1.5),
    "horizontal_flip": 0.5,
    "global_batch_size": 8,
    "micro_batch_size": 2,
    "rank": 0,
    "world_size": 1,
    "num_workers": 0,
    "num_samples": 32,
}


def _training(dataset: ShardedDataset, **changes: Any) -> list[dict[str, torch.Tensor]]:
    split = dataset.split("train")
    return list(training_batches(split, _order(split, SUBSET), **{**SETTINGS, **changes}))


def _order(split: ShardSplit, samples: np.ndarray) -> SampleOrder:
    return SampleOrder(ListedSamples(samples, split.shard_sizes), seed=0, window_shards=2)


def _joined(batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """All micro batches as one, in the order of the stream."""
    joined = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    order = joined["positions"].argsort()
    return {name: value[order] for name, value in joined.items()}


def _equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_batch_holds_what_it_says(dataset: ShardedDataset) -> None:
    batch = _training(dataset)[0]
    assert (batch["images"].shape, batch["images"].dtype) == ((2, 3, 8, 8), torch.uint8)
    assert batch.keys() == {"images", "sample_seeds", "labels", "positions"}
    assert all(batch[name].dtype == torch.int64 and batch[name].shape == (2,) for name in batch.keys() - {"images"})
    assert batch["positions"].tolist() == [0, 1]


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 1), (2, 0), (4, 0), (4, 1)])
def test_the_stream_depends_on_no_rank_or_worker(dataset: ShardedDataset, world_size: int, num_workers: int) -> None:
    parts = [
        batch
        for rank in range(world_size)
        for batch in _training(dataset, rank=rank, world_size=world_size, num_workers=num_workers)
    ]
    assert _equal(_joined(parts), _joined(_training(dataset)))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores, on purpose
@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 3), (2, 1), (7, 0)])
def test_every_layout_sees_the_same_pixels_over_windows_and_epochs(
    dataset: ShardedDataset, world_size: int, num_workers: int
) -> None:
    split = dataset.split("train")

    def stream(**changes: int) -> list[dict[str, torch.Tensor]]:
        samples = ListedSamples(np.arange(len(split)), split.shard_sizes)
        order = SampleOrder(samples, seed=1, window_shards=2, epoch_multiple=14)
        settings: dict[str, Any] = {
            **SETTINGS,
            "global_batch_size": 14,
            "micro_batch_size": 1,
            "num_samples": 56,
            **changes,
        }
        return list(training_batches(split, order, **settings))

    ranks = range(world_size)
    parts = [stream(rank=rank, world_size=world_size, num_workers=num_workers, start_samples=14) for rank in ranks]
    whole = _joined(stream())
    assert _equal(_joined([batch for part in parts for batch in part]), {k: value[14:] for k, value in whole.items()})
    assert all(len({key.tobytes() for key in epoch.numpy()}) == 14 for epoch in whole["images"].split(14))


def test_accumulation_changes_nothing(dataset: ShardedDataset) -> None:
    assert _equal(_joined(_training(dataset, micro_batch_size=8)), _joined(_training(dataset, micro_batch_size=1)))


def test_a_resumed_stream_is_the_rest_of_the_whole_one(dataset: ShardedDataset) -> None:
    whole = _joined(_training(dataset))
    rest = _joined(
        [batch for rank in (0, 1) for batch in _training(dataset, start_samples=16, rank=rank, world_size=2)]
    )
    assert _equal(rest, {name: value[16:] for name, value in whole.items()})


def test_an_image_comes_back_with_another_crop_in_the_next_epoch(dataset: ShardedDataset) -> None:
    stream = _joined(_training(dataset, num_samples=160))
    assert len(stream["sample_seeds"].unique()) == 160
    views = {view.numpy().tobytes() for view in stream["images"]}
    assert len(views) > 140


def test_the_loader_leaves_the_global_random_state_alone(dataset: ShardedDataset) -> None:
    before = torch.random.get_rng_state()
    _training(dataset)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"world_size": 3}, "global_batch_size 8 is not a multiple of micro_batch_size 2 x 3 processes = 6"),
        ({"start_samples": 4}, "start_samples 4"),
        ({"num_samples": 30}, "num_samples 30"),
    ],
)
def test_batch_sizes_that_do_not_divide_are_refused_at_once(
    dataset: ShardedDataset, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _training(dataset, **changes)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_sample_that_cannot_be_read_stops_training_in_one_line(
    shards: Path, tmp_path: Path, num_workers: int
) -> None:
    dataset = open_shards(shutil.copytree(shards, tmp_path / "copy"))
    split = dataset.split("train")
    for path in dataset.folder.glob("train-*.tar"):
        os.truncate(path, 0)
    one = {"global_batch_size": 1, "micro_batch_size": 1, "num_samples": 1, "num_workers": num_workers}
    batches = training_batches(split, _order(split, np.array([5])), **{**SETTINGS, **one})
    with pytest.raises(ValueError, match=rf"train-000000\.tar: sample {split.key(5)} at byte \d+ is cut") as caught:
        next(batches)
    assert "\n" not in str(caught.value)


@pytest.fixture
def cut(shards: Path, tmp_path: Path) -> tuple[ShardSplit, ShardSplit]:
    """Train and test split of a run that was under way when its last train shard lost its last two samples.

    The first two test images were overwritten with text.
    """
    dataset = open_shards(shutil.copytree(shards, tmp_path / "cut"))
    train, test = dataset.split("train"), dataset.split("test")
    last_shard, first_shard = dataset.folder / "train-000003.tar", dataset.folder / "test-000000.tar"
    os.truncate(last_shard, last_shard.read_bytes().index(train.read(22)) + 10)
    content = first_shard.read_bytes()
    for sample in (0, 1):
        content = content.replace(test.read(sample), b"x" * len(test.read(sample)))
    first_shard.write_bytes(content)
    return train, test


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (2, 1), (4, 0)])
def test_skipped_samples_are_counted_and_replaced_alike_on_every_layout(
    cut: tuple[ShardSplit, ShardSplit], world_size: int, num_workers: int
) -> None:
    split, _ = cut
    order = SampleOrder(ListedSamples(np.arange(24), split.shard_sizes), seed=0)
    settings = {**SETTINGS, "num_samples": 48, "on_bad_sample": "skip"}
    alone = list(training_batches(split, order, **settings))
    spread = {**settings, "world_size": world_size, "num_workers": num_workers}
    ranks = [list(training_batches(split, order, **{**spread, "rank": rank})) for rank in range(world_size)]
    parts = [batch for batches in ranks for batch in batches]
    reasons = [torch.stack([batch.pop("bad_samples") for batch in batches]).sum(0) for batches in (alone, parts)]
    assert torch.equal(reasons[0], reasons[1])
    counts = dict(zip(REASONS, reasons[0].tolist(), strict=True))
    assert counts.pop("cut") >= 4 and set(counts.values()) == {0}  # two samples, two epochs
    assert _equal(_joined(alone), _joined(parts))
    assert all(view.any() for batch in alone for view in batch["images"])
    samples = order.samples(np.arange(48))
    labels, expected = _joined(alone)["labels"].numpy(), split.labels_of(samples)
    assert (labels == expected)[~np.isin(samples, [22, 23])].all()


def test_where_every_sample_is_bad_skipping_ends_with_the_last_error(cut: tuple[ShardSplit, ShardSplit]) -> None:
    split, _ = cut
    order = SampleOrder(ListedSamples(np.array([22, 23]), split.shard_sizes), seed=0)
    with pytest.raises(ValueError, match="100 samples in a row cannot be used, the last one: .*is cut"):
        list(training_batches(split, order, **{**SETTINGS, "on_bad_sample": "skip"}))


def test_skipped_evaluation_images_weigh_nothing(cut: tuple[ShardSplit, ShardSplit]) -> None:
    settings: dict[str, Any] = {"image_size": 8, "batch_size": 2, "rank": 0, "world_size": 1, "num_workers": 0}
    batches = list(evaluation_batches(cut[1], np.arange(8), **settings, on_bad_sample="skip"))
    weights = torch.cat([batch["weights"] for batch in batches]).tolist()
    assert weights == [0, 0, 1, 1, 1, 1, 1, 1]
    assert torch.stack([batch["bad_samples"] for batch in batches]).sum(0).tolist() == [
        2 if reason == "not_an_image" else 0 for reason in REASONS
    ]
    with pytest.raises(ValueError, match="not a JPEG"):
        list(evaluation_batches(cut[1], np.arange(8), **settings))


def _evaluation(dataset: ShardedDataset, indices: np.ndarray, **changes: Any) -> list[dict[str, torch.Tensor]]:
    settings: dict[str, Any] = {"image_size": 8, "batch_size": 2, "rank": 0, "world_size": 1, "num_workers": 0}
    return list(evaluation_batches(dataset.split("test"), indices, **{**settings, **changes}))


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("num_images", [1, 7, 8])
def test_evaluation_meets_each_image_once_in_equal_batches(
    dataset: ShardedDataset, world_size: int, num_images: int
) -> None:
    indices = np.arange(8)[::-1][:num_images]
    ranks = [_evaluation(dataset, indices, rank=rank, world_size=world_size) for rank in range(world_size)]
    shapes = [[batch["images"].shape for batch in batches] for batches in ranks]
    assert shapes == [shapes[0]] * world_size and len(shapes[0]) > 0
    real = [
        index
        for batches in ranks
        for batch in batches
        for index, weight in zip(batch["indices"].tolist(), batch["weights"].tolist(), strict=True)
        if weight == 1.0
    ]
    assert sorted(real) == sorted(indices.tolist())


def test_evaluation_is_the_same_on_any_layout(dataset: ShardedDataset) -> None:
    def by_index(batches: list[dict[str, torch.Tensor]]) -> dict[int, tuple[bytes, int, int]]:
        return {
            int(index): (image.numpy().tobytes(), int(seed), int(label))
            for batch in batches
            for index, image, seed, label in zip(
                batch["indices"], batch["images"], batch["sample_seeds"], batch["labels"], strict=True
            )
        }

    alone = by_index(_evaluation(dataset, np.arange(8), batch_size=8, num_workers=1))
    shared = [batch for rank in range(3) for batch in _evaluation(dataset, np.arange(8), rank=rank, world_size=3)]
    assert by_index(shared) == alone


def test_evaluation_without_images_is_refused(dataset: ShardedDataset) -> None:
    with pytest.raises(ValueError, match="no image to evaluate"):
        _evaluation(dataset, np.arange(0))


def test_unlabelled_batches_carry_no_labels(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        shutil.copy(path, folder / f"{number}.png")
    build_shards(folder, tmp_path / "shards")
    assert "labels" not in _training(open_shards(tmp_path / "shards"))[0]
