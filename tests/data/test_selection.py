"""What a configuration selects: subsets by kind, several data sets mixed, what is validated on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arvis_scale.config import DataConfig
from arvis_scale.config.data import MixPart, SubsetConfig
from arvis_scale.data.build import build_shards
from arvis_scale.data.selection import Selection, select_images
from arvis_scale.data.subsets import held_out_fraction, nested_subset


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """Shards of 16 unlabelled images in one split. Read-only."""
    folder = tmp_path_factory.mktemp("flat") / "flat"
    folder.mkdir()
    for number, path in enumerate(sorted((photos / "train").rglob("*.png"))[4:20]):
        (folder / f"{number:02d}.png").write_bytes(path.read_bytes())
    build_shards(folder, folder.parent / "shards", samples_per_shard=5)
    return folder.parent / "shards"


def _select(shards: Path, unique_images: int | None = None, **changes: Any) -> Selection:
    config = DataConfig(shards=str(shards), **changes)
    config.validate()
    return select_images(config, unique_images)


def _labels(selection: Selection) -> np.ndarray:
    labels = selection.train_split.labels_of(selection.training_images())
    assert labels is not None
    return labels


def test_all_images_are_trained_on_unless_held_out(shards: Path, flat: Path) -> None:
    whole = _select(shards)
    assert (whole.unique_images, whole.subset.name) == (24, "uniform-all-seed0")
    assert (whole.validation_split.name, len(whole.validation_indices)) == ("test", 8)
    part = _select(flat, validation_fraction=0.25)
    training, held_out = held_out_fraction(16, 0.25, seed=0)
    assert part.training_images().tolist() == sorted(training)
    some = _select(flat, 5, validation_fraction=0.25)
    assert some.training_images().tolist() == sorted(training[nested_subset(12, 5, seed=0)])
    assert part.validation_indices.tolist() == held_out.tolist()


def test_images_are_held_out_of_the_train_split_beside_a_test_split(shards: Path) -> None:
    whole, apart = _select(shards), _select(shards, validation_split="held_out", validation_fraction=0.25)
    training, held_out = held_out_fraction(24, 0.25, seed=0)
    assert (apart.validation_split.name, apart.validation_indices.tolist()) == ("train", held_out.tolist())
    assert (apart.unique_images, apart.training_images().tolist()) == (18, sorted(training))
    seen = apart.order(seed=3, global_batch_size=6).samples(np.arange(3 * 18))
    assert [sorted(epoch) for epoch in seen.reshape(3, 18)] == [sorted(training)] * 3
    assert apart.subset.hash != whole.subset.hash
    fewer = _select(shards, 10, validation_split="held_out", validation_fraction=0.25, validation_images=4)
    assert fewer.unique_images == 10 and set(fewer.training_images()) < set(training)
    assert len(fewer.validation_indices) == 4 and set(fewer.validation_indices) < set(held_out)
    said = "split 'train' beside the 6 held out for validation: unique_images is 19, but there are 18 images"
    with pytest.raises(ValueError, match=said):
        _select(shards, 19, validation_split="held_out", validation_fraction=0.25)


def test_shards_without_a_test_split_are_held_out_of_by_themselves(flat: Path) -> None:
    unsaid, said = (
        _select(flat, 9, validation_fraction=0.25, **changes) for changes in ({}, {"validation_split": "held_out"})
    )
    assert unsaid.subset == said.subset
    assert unsaid.validation_indices.tolist() == said.validation_indices.tolist()
    orders = [selection.order(seed=1, global_batch_size=4).samples(np.arange(40)) for selection in (unsaid, said)]
    assert orders[0].tolist() == orders[1].tolist()


@pytest.mark.parametrize("changes", [{}, {"subset": SubsetConfig(kind="balanced")}, {"validation_split": "test"}])
def test_subsets_are_nested_and_named_with_a_hash_of_their_own(shards: Path, changes: dict[str, Any]) -> None:
    small, large = (_select(shards, number, **changes) for number in (4, 10))
    assert set(small.training_images()) < set(large.training_images())
    assert (small.subset.unique_images, large.unique_images) == (4, 10)
    assert len({small.subset.hash, large.subset.hash, _select(shards, 4, subset_seed=1, **changes).subset.hash}) == 3
    assert small.subset == _select(shards, 4, **changes).subset
    assert small.subset.name != large.subset.name


def test_kinds_of_subsets_shape_the_classes(shards: Path) -> None:
    balanced = _select(shards, 10, subset=SubsetConfig(kind="balanced"))
    assert np.bincount(_labels(balanced)).tolist() == [5, 5]
    assert balanced.subset.name == "balanced-10-seed0"
    tail = _select(shards, 10, subset=SubsetConfig(kind="long_tail", exponent=2.0))
    assert sorted(np.bincount(_labels(tail))) == [2, 8]
    assert tail.subset.name == "long_tail2-10-seed0"
    dogs = _select(shards, subset=SubsetConfig(classes=["dog"]))
    assert set(_labels(dogs)) == {1} and dogs.unique_images == 12
    assert dogs.subset.name == "uniform-all-seed0-of-1-classes"


def test_a_manifest_chooses_by_key_and_says_what_is_held_out(
    flat: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = _select(flat, validation_fraction=0.25)
    samples = [*whole.training_images()[:5], *whole.validation_indices[:2]]
    manifest = tmp_path / "mine.txt"
    manifest.write_text("\n".join(whole.train_split.key(int(sample)) for sample in samples))
    with caplog.at_level(logging.WARNING):
        chosen = _select(flat, validation_fraction=0.25, subset=SubsetConfig(manifest=str(manifest)))
    assert chosen.training_images().tolist() == sorted(samples[:5])
    assert chosen.subset.name == "uniform-all-seed0-of-mine"
    assert "mine.txt: 2 of its images are held out for validation" in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"subset": SubsetConfig(kind="balanced")}, "goes by classes, but not every image has a label"),
        ({"subset": SubsetConfig(classes=["dog"])}, "goes by classes"),
        ({"subset": SubsetConfig(kind="longtail")}, "data.subset.kind='longtail'.*did you mean 'long_tail'"),
        ({"subset": SubsetConfig(exponent=-1.0)}, "data.subset.exponent=-1.0"),
        ({"window_shards": 0}, "data.window_shards=0"),
        ({"epoch_end": "keep"}, "data.epoch_end='keep' is not known; one of wrap, drop"),
        ({"on_bad_sample": "ignore"}, "data.on_bad_sample='ignore'"),
    ],
)
def test_what_cannot_be_selected_is_refused_in_one_line(flat: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        _select(flat, **changes)
    assert "\n" not in str(caught.value)


def test_more_images_than_there_are_names_shards_and_split(shards: Path) -> None:
    with pytest.raises(ValueError, match=f"{shards}, split 'train': unique_images is 25, but there are 24"):
        _select(shards, 25)


def _mix(*parts: MixPart, **changes: Any) -> Selection:
    config = DataConfig(mix=list(parts), **changes)
    config.validate()
    return select_images(config, None)


def test_a_mix_takes_exact_shares_and_is_read_as_one(shards: Path, flat: Path) -> None:
    mix = _mix(MixPart(str(shards), 3), MixPart(str(flat), 1, unique_images=4), validation_fraction=0.25)
    assert (mix.unique_images, mix.subset.unique_images) == (28, 28)
    assert mix.subset.name == "3xphotos:uniform-all-seed0+1xflat:uniform-4-seed0"
    samples = mix.order(seed=5, global_batch_size=8).samples(np.arange(400))
    from_flat = samples >= 24
    assert from_flat.reshape(100, 4).sum(1).tolist() == [1] * 100
    assert len(set(samples[from_flat])) == 4 and len(set(samples[~from_flat])) == 24
    alone = _select(flat, 4, validation_fraction=0.25)
    for sample in np.unique(samples[from_flat]).tolist():
        assert mix.train_split.key(sample) == f"1:{alone.train_split.key(sample - 24)}"
        assert np.array_equal(
            np.asarray(mix.train_split.image(sample)), np.asarray(alone.train_split.image(sample - 24))
        )
    assert mix.train_split.labels_of(samples) is None
    assert mix.training_images().tolist() == [*range(24), *(24 + alone.training_images())]
    assert sorted(mix.some_training_images()) == mix.training_images().tolist()


def test_a_mix_validates_by_weight(shards: Path, flat: Path) -> None:
    parts = [MixPart(str(shards), 3), MixPart(str(flat), 1)]
    apart = _mix(*parts, validation_fraction=0.25, validation_split="held_out")
    assert len(apart.validation_indices) == 6 + 4 and apart.unique_images == 18 + 12
    assert not set(apart.validation_indices) & set(apart.training_images())
    everything = _mix(*parts, validation_fraction=0.25)
    assert len(everything.validation_indices) == len(set(everything.validation_indices)) == 8 + 4
    some = _mix(*parts, validation_fraction=0.25, validation_images=4)
    assert (some.validation_indices < 8).tolist() == [True, True, True, False]
    assert set(some.validation_indices) < set(everything.validation_indices)


def test_the_hash_of_a_mix_is_over_content_weights_and_subset(shards: Path, flat: Path) -> None:
    mixes = [
        _mix(MixPart(str(shards), 3), MixPart(str(flat), 1)),
        _mix(MixPart(str(shards), 2), MixPart(str(flat), 1)),
        _mix(MixPart(str(flat), 1), MixPart(str(shards), 3)),
        _mix(MixPart(str(shards), 3, unique_images=9), MixPart(str(flat), 1)),
    ]
    assert len({mix.dataset.content_hash for mix in mixes}) == len({mix.subset.hash for mix in mixes}) == 4
    assert mixes[0].dataset.name == "photos+flat"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (DataConfig(), "data.shards must be given"),
        (DataConfig(shards="a", mix=[MixPart("b")]), "both given"),
        (DataConfig(mix=[MixPart("a", weight=0)]), "weight=0 of a"),
        (DataConfig(mix=[MixPart("a", unique_images=0)]), "unique_images=0 of a"),
        (DataConfig(mix=[MixPart("a")], subset=SubsetConfig(kind="balanced")), "data.subset chooses from one data set"),
        (DataConfig(mix=[MixPart("a")], epoch_end="drop"), "data.epoch_end=drop"),
    ],
)
def test_contradictions_are_refused_before_anything_is_opened(config: DataConfig, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        config.validate()
    assert "\n" not in str(caught.value)


def test_a_mix_takes_its_numbers_of_images_from_its_parts(shards: Path) -> None:
    with pytest.raises(ValueError, match="give each one of data.mix its own unique_images"):
        select_images(DataConfig(mix=[MixPart(str(shards))]), 10)
