"""Faulty shards (cut, garbage, missing, wrongly indexed, badly named), each met by policy in build, check, training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arvis_scale.config import DataConfig
from arvis_scale.data import retries
from arvis_scale.data.build import build_index, build_shards
from arvis_scale.data.check import check_shards
from arvis_scale.data.faults import REASONS, BadSample
from arvis_scale.data.index import SampleTable, read_index, samples_folder
from arvis_scale.data.loader import training_batches
from arvis_scale.data.order import SampleOrder
from arvis_scale.data.sample_sets import ListedSamples
from arvis_scale.data.selection import select_images
from arvis_scale.data.shards import Split, open_shards

TarWriter = Callable[..., list[tuple[int, int]]]
NAME = "train-000001.tar"


@pytest.fixture
def damaged(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards to break: train has 4 shards of 6 samples."""
    return Path(shutil.copytree(shards, tmp_path / "damaged"))


def cut(folder: Path) -> None:
    path = folder / NAME
    offset = int(SampleTable.open(samples_folder(folder, "train")).offset[8])
    path.write_bytes(path.read_bytes()[: offset + 10])


def make_garbage(folder: Path) -> None:
    path = folder / NAME
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def remove(folder: Path) -> None:
    (folder / NAME).unlink()


def misplace(folder: Path) -> None:
    """Let the index send two samples of the second shard to places that are none."""
    table = SampleTable.open(samples_folder(folder, "train"))
    offset, size = table.offset.copy(), table.size.copy()
    offset[8], size[9] = 1 << 62, -5
    wrong = replace(table, offset=offset, size=size)
    wrong.write(samples_folder(folder, "train"))
    index = read_index(folder)
    replace(index, table_sha256={**index.table_sha256, "train": wrong.sha256()}).write(folder)


# What breaks -> how, the samples that are lost by it, the reason under which they are counted.
DAMAGES: dict[str, tuple[Callable[[Path], None], list[int], str]] = {
    "cut": (cut, list(range(8, 12)), "cut"),
    "garbage": (make_garbage, list(range(6, 12)), "not_an_image"),
    "missing": (remove, list(range(6, 12)), "missing_shard"),
    "wrong index": (misplace, [8, 9], "wrong_index"),
}


def train(split: Split, samples: list[int], **changes: Any) -> list[dict[str, torch.Tensor]]:
    settings: dict[str, Any] = {
        "image_size": 8,
        "crop_scale": (0.3, 1.0),
        "crop_ratio": (0.75, 1.5),
        "horizontal_flip": 0.5,
        "global_batch_size": 4,
        "micro_batch_size": 4,
        "rank": 0,
        "world_size": 1,
        "num_workers": 0,
        "num_samples": len(samples) // 4 * 4,
    }
    order = SampleOrder(ListedSamples(np.array(samples), split.shard_sizes), seed=0)
    return list(training_batches(split, order, **{**settings, **changes}))


def opened_then_broken(damaged: Path, damage: str) -> Split:
    """The train split as a running training holds it when its disk loses something."""
    break_it = DAMAGES[damage][0]
    if break_it is misplace:
        break_it(damaged)
        return open_shards(damaged).split("train")
    split = open_shards(damaged, num_retries=0).split("train")
    break_it(damaged)
    return split


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_lost_sample_raises_with_shard_key_offset_and_reason(damaged: Path, damage: str) -> None:
    split = opened_then_broken(damaged, damage)
    _, lost, reason = DAMAGES[damage]
    for sample in range(len(split)):
        if sample not in lost:
            split.image(sample)
            continue
        with pytest.raises(BadSample) as caught:
            split.image(sample)
        error = caught.value
        offset = int(SampleTable.open(samples_folder(damaged, "train")).offset[sample])
        assert (error.key, error.offset, error.reason) == (split.key(sample), offset, reason)
        assert error.shard == str(damaged / NAME) and "\n" not in str(error)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_raises_or_skips_as_it_is_told(damaged: Path, damage: str, num_workers: int) -> None:
    split = opened_then_broken(damaged, damage)
    _, lost, reason = DAMAGES[damage]
    samples = list(range(len(split)))
    with pytest.raises(BadSample, match=NAME):
        train(split, samples, num_workers=num_workers)
    batches = train(split, samples, num_workers=num_workers, on_bad_sample="skip")
    assert [len(batch["images"]) for batch in batches] == [4] * 6
    counts = dict(zip(REASONS, sum(batch["bad_samples"] for batch in batches).tolist(), strict=True))
    assert counts.pop(reason) >= len(lost)  # an epoch meets each; replacements may meet them again
    assert not any(counts.values())


def test_an_epoch_without_one_usable_sample_ends_with_its_reason(damaged: Path) -> None:
    split = opened_then_broken(damaged, "missing")
    with pytest.raises(ValueError, match="samples in a row cannot be used.*missing_shard") as caught:
        train(split, list(range(6, 12)), on_bad_sample="skip", num_workers=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_check_names_what_is_lost(damaged: Path, damage: str) -> None:
    break_it, lost, _ = DAMAGES[damage]
    keys = [key.decode() for key in SampleTable.open(samples_folder(damaged, "train")).key]
    break_it(damaged)
    problems = check_shards(damaged).problems
    named = {problem.key for problem in problems}
    if damage == "missing":  # the shard says it for all of its samples
        assert [(problem.file, problem.kind) for problem in problems] == [(NAME, "missing_shard")]
    else:
        assert named - {None} == {keys[sample] for sample in lost}


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_shard_cut_or_missing_from_the_start_stops_a_run_before_it_trains(damaged: Path, damage: str) -> None:
    DAMAGES[damage][0](damaged)
    with pytest.raises(ValueError, match=NAME) as caught:
        open_shards(damaged).split("train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_under_skip_a_shard_cut_or_missing_from_the_start_costs_only_its_samples(damaged: Path, damage: str) -> None:
    break_it, lost, reason = DAMAGES[damage]
    break_it(damaged)
    config = DataConfig(shards=str(damaged), on_bad_sample="skip", num_read_retries=0)
    split = select_images(config, None).train_split
    batches = train(split, list(range(len(split))), on_bad_sample="skip")
    counts = dict(zip(REASONS, sum(batch["bad_samples"] for batch in batches).tolist(), strict=True))
    assert len(batches) == 6 and counts.pop(reason) >= len(lost) and not any(counts.values())


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"\x00" * 300])
@pytest.mark.parametrize("build", [build_shards, build_index])
def test_a_garbage_tar_is_refused_by_the_build(tmp_path: Path, content: bytes, build: Callable[..., Any]) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tar") as caught:
        build(tmp_path / "a.tar", tmp_path / "shards")
    assert "\n" not in str(caught.value) and not (tmp_path / "shards").exists()


@pytest.mark.parametrize("build", [build_shards, build_index])
def test_a_cut_tar_is_refused_by_the_build(
    tmp_path: Path, write_tar: TarWriter, image_bytes: Callable[..., bytes], build: Callable[..., Any]
) -> None:
    path = tmp_path / "a.tar"
    places = write_tar(path, [(f"{number}.jpg", image_bytes(number, "JPEG")) for number in range(4)])
    for end in (places[2][0] - 512, places[2][0], places[2][0] + 10):
        path.write_bytes(path.read_bytes()[:end])
        with pytest.raises(ValueError, match=r"a\.tar breaks off after") as caught:
            build(path, tmp_path / "shards")
        assert "\n" not in str(caught.value) and not (tmp_path / "shards").exists()


@pytest.fixture
def bad_names(tmp_path: Path, write_tar: TarWriter, image_bytes: Callable[..., bytes]) -> Path:
    """A tar with names that lead out of a folder, that are no UTF-8, and a sample without a label."""
    names = ["../../escape", "/etc/absolute", "caf\udce9", "line\nbreak", "plain"]
    members = []
    for number, name in enumerate(names):
        members += [(f"{name}.jpg", image_bytes(number, "JPEG")), (f"{name}.cls", b"%d" % (number % 2))]
    members.append(("unlabelled.jpg", image_bytes(9, "JPEG")))
    write_tar(tmp_path / "names.tar", members)
    return tmp_path / "names.tar"


def test_an_index_over_bad_names_skips_what_it_cannot_name_and_reads_the_rest(bad_names: Path, tmp_path: Path) -> None:
    report = build_index(bad_names, tmp_path / "index")
    reasons = {image.path: image.reason for image in report.skipped}
    assert sorted(reasons) == ["caf\\xe9.jpg", "line\nbreak.jpg", "unlabelled.jpg"]
    assert "label" in reasons["unlabelled.jpg"] and "UTF-8" in reasons["caf\\xe9.jpg"]
    split = open_shards(tmp_path / "index").split("train")
    assert sorted(split.key(sample) for sample in range(len(split))) == ["../../escape", "/etc/absolute", "plain"]
    assert len(train(split, [0, 1, 2], num_samples=8)) == 2
    assert {(problem.kind, problem.key) for problem in check_shards(tmp_path / "index").problems} == {
        ("unsafe_name", f"{name}.{extension}")
        for name in ("../../escape", "/etc/absolute")
        for extension in ("jpg", "cls")
    }


def test_an_index_told_to_raise_names_the_first_and_writes_nothing(bad_names: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3 image files cannot be used, the first is caf.*UTF-8") as caught:
        build_index(bad_names, tmp_path / "index", on_bad_sample="raise")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["names.tar"]


def test_a_build_from_bad_names_gives_safe_keys_and_writes_nothing_elsewhere(bad_names: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    report = build_shards(bad_names, tmp_path / "shards")
    assert report.num_samples == {"train": 6} and report.skipped == []
    split = open_shards(tmp_path / "shards").split("train")
    assert all(split.key(sample).replace("_", "").replace("-", "").isalnum() for sample in range(len(split)))
    assert check_shards(tmp_path / "shards").problems == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [*before, "shards"]


def test_keys_of_any_bytes_are_named_and_no_crash(
    tmp_path: Path, write_shards: Callable[..., Path], image_bytes: Callable[..., bytes]
) -> None:
    folder = write_shards(tmp_path / "shards", [("caf\udce9", b"", 0), ("b", image_bytes(0), 1)], samples_per_shard=2)
    split = open_shards(folder).split("train")
    with pytest.raises(BadSample, match=r"sample caf\\xe9 at byte"):
        split.image(0)
    assert {problem.key for problem in check_shards(folder).problems} == {"caf\\xe9"}


@pytest.fixture
def server(shards: Path, serve: Callable[[Path], str]) -> str:
    """Address of an HTTP server of the shards."""
    return serve(shards)


def remote_copy(shards: Path, address: str, folder: Path) -> Path:
    """The index alone, its shards on the server."""
    shutil.copytree(shards, folder, ignore=shutil.ignore_patterns("*.tar"))
    index = read_index(shards)
    splits = {
        split: [replace(entry, file=f"{address}/{entry.file}") for entry in entries]
        for split, entries in index.splits.items()
    }
    replace(index, splits=splits).write(folder)
    return folder


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_over_http_gives_the_batches_of_local_shards(
    shards: Path, server: str, tmp_path: Path, num_workers: int
) -> None:
    remote = open_shards(remote_copy(shards, server, tmp_path / "remote")).split("train")
    remote.image(0)  # what the main process has read must not disturb its workers
    samples = list(range(len(remote)))
    local = train(open_shards(shards).split("train"), samples)
    over_http = train(remote, samples, num_workers=num_workers)
    for one, other in zip(local, over_http, strict=True):
        assert torch.equal(one["images"], other["images"]) and torch.equal(one["labels"], other["labels"])


def test_shards_over_http_are_checked_whole(shards: Path, server: str, tmp_path: Path) -> None:
    assert check_shards(remote_copy(shards, server, tmp_path / "remote")).problems == []


def test_a_dead_server_is_met_by_policy(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)
    folder = remote_copy(shards, "http://127.0.0.1:1", tmp_path / "remote")
    split = open_shards(folder, num_retries=1).split("train")
    with pytest.raises(BadSample, match=r"http://127\.0\.0\.1:1/train-.*\(read_error\)") as caught:
        split.image(0)
    assert "\n" not in str(caught.value)
    assert {problem.kind for problem in check_shards(folder).problems} == {"read_error"}
