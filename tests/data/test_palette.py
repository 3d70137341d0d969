"""The palette of a data set: seeded, whole, near to the colors that the images have."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arvis_scale.data.build import build_shards
from arvis_scale.data.faults import BadSample
from arvis_scale.data.palette import load_palette, palette_of_images, save_palette
from arvis_scale.data.shards import ShardedDataset, ShardSplit, open_shards


@pytest.fixture(scope="module")
def split(dataset: ShardedDataset) -> ShardSplit:
    return dataset.split("train")


def palette(split: ShardSplit, **changes: int) -> np.ndarray:
    arguments = {"num_colors": 32, "resolution": 8, "seed": 0, **changes}
    return palette_of_images(split, np.arange(len(split)), **arguments)


def test_palette_depends_on_images_and_seed_alone(split: ShardSplit) -> None:
    first = palette(split)
    assert first.shape == (32, 3) and first.dtype == np.float32
    assert np.array_equal(first, palette(split))
    assert not np.array_equal(first, palette(split, seed=1))
    other_half = palette_of_images(split, np.arange(12), num_colors=32, resolution=8, seed=0)
    assert not np.array_equal(first, other_half)


def test_rows_are_different_colors_in_order(split: ShardSplit) -> None:
    rows = palette(split).tolist()
    assert rows == sorted(rows) and len(set(map(tuple, rows))) == 32
    assert np.abs(rows).max() <= 1


def test_more_colors_come_nearer_to_the_pixels(split: ShardSplit) -> None:
    pixels = np.concatenate([np.asarray(split.image(sample)).reshape(-1, 3) for sample in range(len(split))])
    scaled = pixels.astype(np.float32) / 127.5 - 1

    def error(num_colors: int) -> float:
        colors = palette(split, num_colors=num_colors)
        return float(((scaled[:, None] - colors) ** 2).sum(axis=2).min(axis=1).mean())

    errors = [error(num_colors) for num_colors in (2, 8, 64)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    # The mean color alone, for scale: the spread of the pixels themselves.
    assert errors[0] < 0.8 * float(((scaled - scaled.mean(axis=0)) ** 2).sum(axis=1).mean())


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Shards of digits whose first three samples are no images."""
    build_shards("digits", tmp_path / "shards")
    offsets = np.load(tmp_path / "shards" / "train.samples" / "offset.npy")
    with open(tmp_path / "shards" / "train-000000.tar", "r+b") as tar:
        for offset in offsets[:3].tolist():
            tar.seek(offset)
            tar.write(b"no image")
    return tmp_path / "shards"


def test_images_that_cannot_be_used_are_told_and_replaced(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arvis_scale.data.palette.MAX_IMAGES", 4)
    split, skipped = open_shards(damaged).split("train"), list[BadSample]()
    arguments = {"num_colors": 8, "resolution": 8, "seed": 0}
    replaced = palette_of_images(split, np.arange(7), on_skip=skipped.append, **arguments)
    assert sorted(error.key for error in skipped) == sorted(split.key(sample) for sample in range(3))
    assert {error.reason for error in skipped} == {"not_an_image"}
    monkeypatch.setattr("arvis_scale.data.palette.MAX_IMAGES", 3)
    fewer = palette_of_images(split, np.arange(7), on_skip=skipped.append, **arguments)
    monkeypatch.setattr("arvis_scale.data.palette.MAX_IMAGES", 7)
    all_of_them = palette_of_images(split, np.arange(7), on_skip=skipped.append, **arguments)
    assert np.array_equal(replaced, all_of_them) and not np.array_equal(replaced, fewer)


def test_without_faults_the_policy_changes_nothing(split: ShardSplit) -> None:
    skipping = palette_of_images(split, np.arange(len(split)), num_colors=32, resolution=8, seed=0, on_skip=pytest.fail)
    np.testing.assert_array_equal(skipping, palette(split))


def test_an_image_that_cannot_be_used_stops_a_run_that_does_not_skip(damaged: Path) -> None:
    with pytest.raises(BadSample, match="not_an_image"):
        palette(open_shards(damaged).split("train"))


def test_where_no_image_can_be_used_the_error_says_so(damaged: Path) -> None:
    split = open_shards(damaged).split("train")
    with pytest.raises(ValueError, match="none of 3 training images can be used"):
        palette_of_images(split, np.arange(3), num_colors=8, resolution=8, seed=0, on_skip=lambda error: None)


def test_many_bad_images_in_a_row_are_no_accident(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arvis_scale.data.palette.MAX_REPLACEMENTS", 3)
    split = open_shards(damaged).split("train")
    with pytest.raises(ValueError, match=r"^3 samples in a row cannot be used, the last one: .*not_an_image"):
        palette_of_images(split, np.arange(3), num_colors=8, resolution=8, seed=0, on_skip=lambda error: None)


def test_few_colors_are_the_palette_and_the_last_is_repeated(tmp_path: Path) -> None:
    colors = np.array([[0, 0, 0], [255, 0, 0], [255, 255, 255]], dtype=np.uint8)
    for number in range(3):
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        buffer = BytesIO()
        Image.fromarray(np.tile(colors[number], (8, 8, 1))).save(buffer, format="PNG")
        (folder / f"{number}.png").write_bytes(buffer.getvalue())
    build_shards(folder, tmp_path / "shards")
    split = open_shards(tmp_path / "shards").split("train")
    got = palette(split, num_colors=5)
    assert got.tolist() == [[-1, -1, -1], [1, -1, -1], [1, 1, 1], [1, 1, 1], [1, 1, 1]]


def test_saved_palette_is_read_again(tmp_path: Path, split: ShardSplit) -> None:
    path = tmp_path / "palette.npy"
    save_palette(palette(split), path)
    assert np.array_equal(load_palette(path, 32), palette(split))
    assert [file.name for file in tmp_path.iterdir()] == ["palette.npy"]


def test_a_file_that_is_no_palette_of_that_size_is_named(tmp_path: Path, split: ShardSplit) -> None:
    path = tmp_path / "palette.npy"
    with pytest.raises(ValueError, match=r"palette.npy is no palette \(.*No such file"):
        load_palette(path, 32)
    save_palette(palette(split), path)
    with pytest.raises(ValueError, match=r"palette.npy holds float32 \(32, 3\), not float32 \(16, 3\)"):
        load_palette(path, 16)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="palette.npy is no palette"):
        load_palette(path, 32)
