"""Statistics and contact sheet of a shard folder, and the commands that print them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import arvis_scale.cli.shards  # noqa: F401 - registers its commands
from arvis_scale.cli.app import app
from arvis_scale.data.contact_sheet import write_contact_sheet
from arvis_scale.data.shard_statistics import describe, split_statistics
from arvis_scale.data.shards import ShardedDataset, open_shards

ShardWriter = Callable[..., Path]


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_statistics_count_what_is_there(dataset: ShardedDataset, shards: Path) -> None:
    train = split_statistics(dataset, "train")
    assert (train.num_samples, train.num_shards, train.num_unlabelled) == (24, 4, 0)
    assert train.class_counts.tolist() == [12, 12] and train.formats == {"png": 24}
    assert train.shorter_sides == (16, 16, 16) and train.longer_sides == (20, 20, 20)
    assert train.num_bytes == sum(path.stat().st_size for path in shards.glob("train-*.tar"))
    text = describe(dataset, [train, split_statistics(dataset, "test")])
    assert "train: 24 images, 4 shards" in text and "test: 8 images" in text and "2, 12 to 12 images each" in text


def test_images_that_cannot_be_read_are_counted_in_the_statistics(
    tmp_path: Path, write_shards: ShardWriter, image_bytes: Callable[..., bytes]
) -> None:
    images = [("a", image_bytes(0), 0), ("b", b"text", 0), ("c", b"", 1)]
    dataset = open_shards(write_shards(tmp_path / "shards", images, samples_per_shard=3))
    statistics = split_statistics(dataset, "train")
    assert (statistics.num_measured, statistics.num_unreadable) == (1, 2)
    assert "unreadable   2 of 3 images" in describe(dataset, [statistics])


def test_a_contact_sheet_is_a_function_of_the_seed(dataset: ShardedDataset, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_contact_sheet(dataset, "train", tmp_path / f"{name}.png", seed=seed)
    first, again, other = (_pixels(tmp_path / f"{name}.png") for name in "abc")
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)


def test_a_contact_sheet_shows_every_class_and_the_images_that_cannot_be_read(
    tmp_path: Path, write_shards: ShardWriter, image_bytes: Callable[..., bytes]
) -> None:
    red, blue = (Image.new("RGB", (8, 8), color) for color in ((200, 0, 0), (0, 0, 200)))
    for name, image in (("red", red), ("blue", blue)):
        image.save(tmp_path / f"{name}.png")
    contents = [(tmp_path / f"{name}.png").read_bytes() for name in ("red", "blue")]
    images = [(f"r{number}", contents[0], 0) for number in range(9)] + [("b", contents[1], 1), ("x", b"text", 1)]
    dataset = open_shards(write_shards(tmp_path / "shards", images, samples_per_shard=20))
    write_contact_sheet(dataset, "train", tmp_path / "sheet.png")
    pixels = _pixels(tmp_path / "sheet.png").reshape(-1, 3)
    num_red, num_blue, num_grey = (
        (pixels == color).all(axis=1).sum() for color in ([200, 0, 0], [0, 0, 200], [235] * 3)
    )
    cell = num_red / 8  # 8 of the 9 red ones fill the row of their class
    assert cell > 10_000
    assert num_blue == pytest.approx(cell, rel=0.05) and 0.6 * cell < num_grey < 1.05 * cell


def test_a_contact_sheet_of_many_classes_and_of_none(
    tmp_path: Path, write_shards: ShardWriter, image_bytes: Callable[..., bytes]
) -> None:
    unlabelled = [(f"{number}", image_bytes(number), -1) for number in range(3)]
    dataset = open_shards(write_shards(tmp_path / "unlabelled", unlabelled, samples_per_shard=9))
    write_contact_sheet(dataset, "train", tmp_path / "unlabelled.png")
    assert _pixels(tmp_path / "unlabelled.png").shape[1] > _pixels(tmp_path / "unlabelled.png").shape[0]


def test_check_and_show_print_write_and_end_as_they_should(shards: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    folder = str(shutil.copytree(shards, tmp_path / "shards"))
    whole = run(app, ["shards", "check", folder, "--json", str(tmp_path / "check.json")])
    assert whole.exit_code == 0 and "all whole" in whole.output
    assert json.loads((tmp_path / "check.json").read_text())["problems"] == []
    shown = run(app, ["shards", "show", folder, "--sheet", str(tmp_path / "sheet.png")])
    assert shown.exit_code == 0 and "24 images" in shown.output and (tmp_path / "sheet.png").stat().st_size > 1000
    (Path(folder) / "train-000000.tar").unlink()
    for options in ([], ["--quick"]):
        broken = run(app, ["shards", "check", folder, *options])
        assert broken.exit_code == 1 and "train-000000.tar: the shard is missing" in broken.output
    assert run(app, ["shards", "show", folder, "--sheet", str(tmp_path / "again.png")]).exit_code == 0
