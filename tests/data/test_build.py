"""Building shards from folders, archives and the built-in data set."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from arvis_scale.data.build import build_shards
from arvis_scale.data.shards import ShardedDataset, open_shards


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    return path


def test_same_source_gives_the_same_bytes(photos: Path, shards: Path, tmp_path: Path) -> None:
    build_shards(photos, tmp_path / "again", samples_per_shard=7)
    assert _files(tmp_path / "again") == _files(shards)


def test_another_seed_gives_another_order_of_the_same_images(photos: Path, shards: Path, tmp_path: Path) -> None:
    build_shards(photos, tmp_path / "other", samples_per_shard=7, seed=1)
    first, other = open_shards(shards), open_shards(tmp_path / "other")
    keys, other_keys = (
        [split.key(i) for i in range(len(split))] for split in (first.split("train"), other.split("train"))
    )
    assert keys != other_keys
    assert sorted(keys) == sorted(other_keys)
    assert first.content_hash != other.content_hash


def test_image_bytes_are_kept_and_reported(photos: Path, tmp_path: Path) -> None:
    report = build_shards(photos, tmp_path / "shards", samples_per_shard=7)
    assert (report.name, report.classes) == ("photos", ["cat", "dog"])
    assert (report.num_samples, report.num_shards, report.skipped) == ({"train": 24, "test": 8}, 6, [])
    assert report.num_bytes == sum(path.stat().st_size for path in (tmp_path / "shards").glob("*.tar"))
    split = open_shards(tmp_path / "shards").split("train")
    for sample in range(len(split)):
        _, name, number = split.key(sample).split("_")
        assert split.read(sample) == (photos / "train" / name / f"{number}.png").read_bytes()


def test_shards_mix_classes(dataset: ShardedDataset) -> None:
    labels = dataset.split("train").labels
    assert labels is not None
    assert all(len(set(labels[start : start + 7].tolist())) == 2 for start in (0, 7, 14))


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_an_archive_gives_the_content_hash_of_its_folder(
    photos: Path, shards: Path, tmp_path: Path, suffix: str
) -> None:
    archive = tmp_path / f"packed{suffix}"
    files = sorted((path for path in photos.rglob("*") if path.is_file()), reverse=True)
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in files:
                packed.write(path, path.relative_to(photos.parent))
    else:
        mode = "w:gz" if suffix.endswith("gz") else "w"
        _tar(archive, [(str(path.relative_to(photos.parent)), path.read_bytes()) for path in files], mode)
    report = build_shards(archive, tmp_path / "shards", samples_per_shard=7)
    assert report.name == "packed"
    assert report.content_hash == open_shards(shards).content_hash


def test_digits_are_split_by_class_and_32_pixels_wide(tmp_path: Path) -> None:
    report = build_shards("digits", tmp_path / "digits")
    assert report.classes == [str(digit) for digit in range(10)]
    assert report.num_samples == {"train": 1000, "test": 797}
    dataset = open_shards(tmp_path / "digits")
    labels = dataset.split("train").labels
    assert labels is not None
    counts = np.bincount(labels)
    assert counts.min() >= 96 and counts.max() <= 102
    image = dataset.split("test").image(0)
    assert (image.size, image.mode) == ((32, 32), "RGB")


def test_unreadable_images_are_counted_named_and_skipped(tmp_path: Path, image_bytes: Callable[..., bytes]) -> None:
    folder = tmp_path / "photos" / "cat"
    folder.mkdir(parents=True)
    whole = image_bytes(0, "JPEG", (64, 64))
    (folder / "whole.jpg").write_bytes(whole)
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    (folder / "other.gif").write_bytes(image_bytes(1, "GIF"))
    (folder / "notes.txt").write_text("no image by its name")
    (folder / "gone.jpg").symlink_to("nowhere")
    (folder / "._whole.jpg").write_text("hidden")
    report = build_shards(tmp_path / "photos", tmp_path / "shards")
    assert report.num_samples == {"train": 1}
    reasons = {image.path: image.reason for image in report.skipped}
    assert sorted(reasons) == ["cat/cut.jpg", "cat/empty.png", "cat/gone.jpg", "cat/other.gif", "cat/text.jpg"]
    assert "truncated" in reasons["cat/cut.jpg"].lower()
    assert reasons["cat/empty.png"] == "the file is empty"
    index = json.loads((tmp_path / "shards" / "index.json").read_text())
    assert {image["path"]: image["reason"] for image in index["skipped"]} == reasons
    assert "skipped 5 image files (" in report.summary() and "cat/cut.jpg" in report.summary()
    assert "1 x the file is empty" in report.summary() and "2 x not a JPEG, PNG or WebP image" in report.summary()


def test_unlabelled_images_have_no_labels(tmp_path: Path, image_bytes: Callable[..., bytes]) -> None:
    for number, name in enumerate(("a.png", "2020/b.png", "2020/paris/c.png")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(number))
    report = build_shards(tmp_path / "photos", tmp_path / "shards")
    assert report.classes == [] and report.num_samples == {"train": 3}
    split = open_shards(tmp_path / "shards").split("train")
    assert split.labels is None
    assert {split.key(sample) for sample in range(3)} == {"train_a", "train_2020_b", "train_2020_paris_c"}


@pytest.mark.parametrize("kind", ["missing", "empty", "unreadable", "not an archive", "cut archive"])
def test_a_source_without_images_is_refused_before_writing(
    tmp_path: Path, kind: str, image_bytes: Callable[..., bytes]
) -> None:
    source = tmp_path / "source"
    if kind in ("empty", "unreadable"):
        source.mkdir()
    if kind == "unreadable":
        (source / "a.jpg").write_text("text")
    if kind == "not an archive":
        source.write_text("text" * 1000)
    if kind == "cut archive":
        # Cut between two members: tarfile itself takes this for a whole archive.
        _tar(source, [(f"{number}.png", image_bytes(number)) for number in range(3)])
        with tarfile.open(source) as archive:
            source.write_bytes(source.read_bytes()[: archive.getmembers()[2].offset])
    with pytest.raises(ValueError, match="source") as caught:
        build_shards(source, tmp_path / "out" / "shards")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_finished_build_is_reported_and_left_as_it_is(photos: Path, tmp_path: Path) -> None:
    first = build_shards(photos, tmp_path / "shards")
    before = _files(tmp_path / "shards")
    again = build_shards(photos, tmp_path / "shards")
    assert again.was_finished and not first.was_finished
    assert again.content_hash == first.content_hash and "is finished already" in again.summary()
    assert _files(tmp_path / "shards") == before


@pytest.mark.parametrize("other", ["source", "options"])
def test_a_finished_build_is_not_overwritten_by_another(photos: Path, tmp_path: Path, other: str) -> None:
    build_shards(photos, tmp_path / "shards")
    before = _files(tmp_path / "shards")
    with pytest.raises(ValueError, match=r"already holds the finished shards of 'photos' \(32 images"):
        if other == "source":
            build_shards("digits", tmp_path / "shards")
        else:
            build_shards(photos, tmp_path / "shards", seed=1)
    assert _files(tmp_path / "shards") == before


def test_a_folder_that_holds_something_else_is_not_overwritten(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds something else"):
        build_shards(photos, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path, image_bytes: Callable[..., bytes]) -> None:
    image = tmp_path / "photos" / "a.png"
    image.parent.mkdir()
    image.write_bytes(image_bytes(0))

    def change(stage: str, done: int, total: int | None) -> None:
        if stage == "verifying":
            image.write_bytes(image_bytes(1))

    with pytest.raises(ValueError, match=r"a\.png changed"):
        build_shards(tmp_path / "photos", tmp_path / "shards", progress=change)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_archive_names_reach_neither_the_disk_nor_the_keys(tmp_path: Path, image_bytes: Callable[..., bytes]) -> None:
    names = ["../../evil/a.png", "/etc/evil/b.png", "./evil/c.png", "evil/../../d.png"]
    work = tmp_path / "work"
    work.mkdir()
    archive = _tar(work / "photos.tar", [(name, image_bytes(number)) for number, name in enumerate(names)])
    report = build_shards(archive, work / "shards")
    assert sum(report.num_samples.values()) == 4
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        ["work", "photos.tar", "shards", "index.json", "train-000000.tar", "train.samples"]
        + [f"{column}.npy" for column in ("offset", "size", "label", "key", "extension")]
    )
    with tarfile.open(work / "shards" / "train-000000.tar") as shard:
        assert all("/" not in name and ".." not in name for name in shard.getnames())


def test_links_and_second_members_in_an_archive_are_named(tmp_path: Path, image_bytes: Callable[..., bytes]) -> None:
    archive = _tar(tmp_path / "photos.tar", [("a.png", image_bytes(0)), ("a.png", image_bytes(1))])
    with tarfile.open(archive, "a") as packed:
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.LNKTYPE, "a.png"
        packed.addfile(link)
    report = build_shards(archive, tmp_path / "shards")
    assert report.num_samples == {"train": 1}
    reasons = {image.path: image.reason for image in report.skipped}
    assert "second file" in reasons["a.png"] and "link" in reasons["b.png"]


def test_building_checking_and_reading_need_no_torch() -> None:
    program = (
        "import sys, arvis_scale.data.build, arvis_scale.data.check, arvis_scale.data.shards, arvis_scale.data.order\n"
    )
    program += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
