"""Shard sizes, re-encoding, statistics, and what does not depend on the number of workers."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from arvis_scale.data.build import build_shards
from arvis_scale.data.index import DatasetIndex, read_index
from arvis_scale.data.shards import open_shards

ImageMaker = Callable[..., bytes]


def _folder(root: Path, images: dict[str, bytes]) -> Path:
    for name, data in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 noise PNGs of 10 x 10 to 60 x 60 pixels: 0.4 to 11 KB. Read-only."""
    draw = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("uneven") / "uneven"
    for number in range(300):
        side = int(draw.integers(10, 61))
        path = root / f"c{number % 2}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return root


def _build(source: Path, destination: Path, **options: Any) -> DatasetIndex:
    build_shards(source, destination, **options)
    return read_index(destination)


@pytest.mark.parametrize("size", [1, 7, 90, 299, 300, 10_000])
def test_shards_by_count_are_equal_within_one_sample(uneven: Path, tmp_path: Path, size: int) -> None:
    counts = [entry.num_samples for entry in _build(uneven, tmp_path / "s", samples_per_shard=size).splits["train"]]
    assert sum(counts) == 300 and max(counts) <= size and max(counts) - min(counts) <= 1
    assert len(counts) == -(-300 // size)


@pytest.mark.parametrize(("size", "num_shards"), [(100_000, 20), (400_000, 5), (10**9, 1)])
def test_shards_by_bytes_are_equal_within_one_sample(uneven: Path, tmp_path: Path, size: int, num_shards: int) -> None:
    index = _build(uneven, tmp_path / "s", bytes_per_shard=size)
    sizes = [entry.num_bytes for entry in index.splits["train"]]
    sample, padding = 13_000, 10_240
    assert len(sizes) == num_shards and sum(entry.num_samples for entry in index.splits["train"]) == 300
    assert max(sizes) - min(sizes) <= sample + padding and max(sizes) <= size + sample + padding


def test_a_byte_size_below_one_sample_gives_shards_of_one(uneven: Path, tmp_path: Path) -> None:
    index = _build(uneven, tmp_path / "s", bytes_per_shard=600)
    assert [entry.num_samples for entry in index.splits["train"]] == [1] * 300


@pytest.mark.parametrize(
    "options",
    [
        {"samples_per_shard": 0},
        {"bytes_per_shard": 0},
        {"samples_per_shard": 5, "bytes_per_shard": 5},
        {"shorter_side": 0},
        {"shorter_side": 8, "quality": 101},
    ],
)
def test_options_that_cannot_be_meant_are_refused_before_writing(
    uneven: Path, tmp_path: Path, options: dict[str, int]
) -> None:
    with pytest.raises(ValueError) as caught:
        build_shards(uneven, tmp_path / "s", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{}, {"shorter_side": 30}])
def test_workers_make_no_difference(uneven: Path, tmp_path: Path, options: dict[str, int]) -> None:
    for workers in (1, 3):
        _build(uneven, tmp_path / str(workers), samples_per_shard=70, num_workers=workers, **options)
    files = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file())
    assert len(files) == 5 + 1 + 5
    assert all((tmp_path / "1" / file).read_bytes() == (tmp_path / "3" / file).read_bytes() for file in files)


def test_only_larger_images_are_encoded_anew(tmp_path: Path, image_bytes: ImageMaker) -> None:
    small, edge = image_bytes(0, "PNG", (300, 31)), image_bytes(1, "JPEG", (40, 32))
    images = {"a/small.png": small, "a/edge.jpg": edge, "a/large.png": image_bytes(2, "PNG", (150, 100))}
    index = _build(_folder(tmp_path / "in", images), tmp_path / "s", shorter_side=32)
    split = open_shards(tmp_path / "s").split("train")
    found = {split.key(row): split.read(row) for row in range(3)}
    assert (found["train_a_small"], found["train_a_edge"]) == (small, edge)
    large = Image.open(BytesIO(found["train_a_large"]))
    assert (large.format, large.size, large.mode) == ("JPEG", (48, 32), "RGB")
    expected = Image.open(BytesIO(images["a/large.png"])).resize((48, 32), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(large, dtype=int) - np.asarray(expected, dtype=int)).mean() < 2
    with tarfile.open(tmp_path / "s" / "train-000000.tar") as shard:
        assert "train_a_large.jpg" in shard.getnames()
    assert index.statistics["reencoded_images"] == 1
    assert index.statistics["options"]["reencoding"] == {"shorter_side": 32, "quality": 95}
    assert index.statistics["formats"] == {"jpg": 2, "png": 1}


def test_quality_makes_files_smaller(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, format="PNG")
    folder = _folder(tmp_path / "in", {"a/a.png": buffer.getvalue()})
    sizes = [
        _build(folder, tmp_path / str(quality), shorter_side=100, quality=quality).statistics["bytes"]["max"]
        for quality in (50, 95)
    ]
    assert sizes[0] < 0.5 * sizes[1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_encoded_anew_stand_upright(tmp_path: Path, orientation: int) -> None:
    corners = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
    upright = Image.fromarray(corners).resize((120, 80), Image.Resampling.NEAREST)
    # How a camera stores it: what showing the file with its orientation undoes.
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = BytesIO()
    stored.save(buffer, format="JPEG", quality=95, exif=exif)
    _build(_folder(tmp_path / "in", {"a/a.jpg": buffer.getvalue()}), tmp_path / "s", shorter_side=40)
    image = Image.open(BytesIO(open_shards(tmp_path / "s").split("train").read(0)))
    assert image.size == (60, 40) and image.getexif().get(0x0112, 1) == 1
    pixels = np.asarray(image, dtype=int)
    found = pixels[[10, 10, 30, 30], [15, 45, 15, 45]]
    assert np.abs(found - corners.reshape(4, 3)).max() < 40


def test_damaged_exif_is_no_reason_to_skip(tmp_path: Path, image_bytes: ImageMaker) -> None:
    buffer = BytesIO()
    Image.open(BytesIO(image_bytes(0, "PNG", (90, 60)))).save(
        buffer, format="JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"
    )
    index = _build(_folder(tmp_path / "in", {"a/a.jpg": buffer.getvalue()}), tmp_path / "s", shorter_side=40)
    assert index.skipped == [] and index.statistics["reencoded_images"] == 1


def test_statistics_are_those_of_the_images(uneven: Path, tmp_path: Path) -> None:
    statistics = _build(uneven, tmp_path / "s").statistics
    images = [np.asarray(Image.open(path)) for path in uneven.rglob("*.png")]
    sides = [image.shape[0] for image in images]
    sizes = [path.stat().st_size for path in uneven.rglob("*.png")]
    expected = {"min": min(sides), "median": float(np.median(sides)), "max": max(sides)}
    assert statistics["width"] == statistics["height"] == expected
    assert statistics["bytes"] == {"min": min(sizes), "median": float(np.median(sizes)), "max": max(sizes)}
    assert statistics["formats"] == {"png": 300} and statistics["channel_images"] == 300
    means = np.mean([(image / 255).mean(axis=(0, 1)) for image in images], axis=0)
    squares = np.mean([((image / 255) ** 2).mean(axis=(0, 1)) for image in images], axis=0)
    assert np.allclose(statistics["channel_mean"], means, atol=1e-6)
    assert np.allclose(statistics["channel_std"], np.sqrt(squares - means**2), atol=1e-6)


def test_the_index_is_json_with_its_schema(uneven: Path, tmp_path: Path) -> None:
    _build(uneven, tmp_path / "s")
    value = json.loads((tmp_path / "s" / "index.json").read_text())
    assert value["schema_version"] == 2 and value["classes"] == ["c0", "c1"] and list(value["splits"]) == ["train"]


def test_a_compressed_tar_is_unpacked_beside_the_destination_and_no_trace_remains(uneven: Path, tmp_path: Path) -> None:
    archive = tmp_path / "uneven.tar.xz"
    with tarfile.open(archive, "w:xz") as packed:
        packed.add(uneven, "uneven")
    stages: list[str] = []
    report = build_shards(archive, tmp_path / "s", progress=lambda stage, done, total: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["unpacking", "listing", "verifying", "writing"]
    assert report.content_hash == build_shards(uneven, tmp_path / "folder").content_hash
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "s", "uneven.tar.xz"]


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_cut_compressed_tar_is_refused_and_leaves_nothing(uneven: Path, tmp_path: Path, keep: float) -> None:
    archive = tmp_path / "uneven.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(uneven, "uneven")
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * keep)])
    with pytest.raises(ValueError, match=r"uneven\.tar\.gz breaks off") as caught:
        build_shards(archive, tmp_path / "out" / "s")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["uneven.tar.gz"]
