"""Reading shards: by our index and by webdataset itself."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import webdataset

from arvis_scale.data.build import build_shards
from arvis_scale.data.shards import ShardedDataset, open_shards


def test_webdataset_reads_the_same_keys_labels_and_pixels(shards: Path, dataset: ShardedDataset) -> None:
    for name in ("train", "test"):
        split = dataset.split(name)
        urls = [str(path) for path in sorted(shards.glob(f"{name}-*.tar"))]
        labels = split.labels
        assert labels is not None
        samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("pil"))
        assert [sample["__key__"] for sample in samples] == [split.key(number) for number in range(len(split))]
        assert [sample["cls"] for sample in samples] == labels.tolist()
        for number, sample in enumerate(samples):
            image = sample.get("png") or sample.get("jpg")
            assert np.array_equal(np.asarray(image), np.asarray(split.image(number)))


def test_labels_follow_the_sorted_class_names(dataset: ShardedDataset) -> None:
    split = dataset.split("test")
    assert split.labels is not None and split.labels.dtype == np.int64
    assert dataset.classes == ["cat", "dog"]
    names = [dataset.classes[label] for label in split.labels]
    assert [split.key(sample).split("_")[1] for sample in range(len(split))] == names


@pytest.mark.parametrize("content", [None, "text"])
def test_a_folder_without_an_index_is_refused_with_the_command_to_run(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / "a.txt").write_text(content)
    with pytest.raises(ValueError, match="arvis-scale shards build SRC DST") as caught:
        open_shards(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unknown_split_names_those_there_are(dataset: ShardedDataset) -> None:
    assert dataset.splits == ["train", "test"]
    with pytest.raises(ValueError, match="no split 'val'; it has train, test"):
        dataset.split("val")


def test_samples_outside_the_split_are_refused(dataset: ShardedDataset) -> None:
    split = dataset.split("test")
    for sample in (-1, len(split)):
        with pytest.raises(IndexError):
            split.read(sample)


def test_a_pickled_split_reads_the_same(dataset: ShardedDataset) -> None:
    split = dataset.split("train")
    expected = split.read(20)
    assert pickle.loads(pickle.dumps(split)).read(20) == expected


def test_open_files_are_bounded(photos: Path, tmp_path: Path) -> None:
    build_shards(photos, tmp_path / "shards", samples_per_shard=1)
    split = open_shards(tmp_path / "shards", max_open_shards=3).split("train")
    before = len(list(Path("/proc/self/fd").iterdir()))
    images = [split.read(sample) for sample in range(len(split))]
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 3
    assert [split.read(sample) for sample in range(len(split))] == images


def test_a_shard_that_vanishes_or_is_cut_later_is_named_with_the_key(shards: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "copy"))
    split = open_shards(copy).split("train")
    os.truncate(copy / "train-000000.tar", 100)
    (copy / "train-000003.tar").unlink()
    with pytest.raises(ValueError, match=rf"train-000000\.tar: sample {split.key(0)} at byte 512 is cut"):
        split.read(0)
    with pytest.raises(ValueError, match=rf"train-000003\.tar: sample {split.key(23)} at byte \d+ .* shard is missing"):
        split.read(23)
