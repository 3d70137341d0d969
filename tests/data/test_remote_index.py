"""A shard folder by its URL: the same samples as on the disk, its index copied once, and one line where that fails."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from arvis_scale.config import DataConfig
from arvis_scale.data.build import build_index, build_shards
from arvis_scale.data.check import check_shards
from arvis_scale.data.index import samples_folder
from arvis_scale.data.loader import training_batches
from arvis_scale.data.remote_index import index_folder
from arvis_scale.data.selection import select_images
from arvis_scale.data.shards import open_shards

Serve = Callable[[Path], str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "arvis_scale" / "indexes"


@pytest.fixture
def folder(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards to serve."""
    return Path(shutil.copytree(shards, tmp_path / "served" / "photos"))


def batches_of(shards: str, num_workers: int) -> list[dict[str, torch.Tensor]]:
    images = select_images(DataConfig(shards=shards), 20)
    order = images.order(seed=0, global_batch_size=4)
    views = {"image_size": 8, "crop_scale": (0.3, 1.0), "crop_ratio": (0.75, 1.5), "horizontal_flip": 0.5}
    sizes = {"global_batch_size": 4, "micro_batch_size": 4, "num_samples": 40}
    return list(
        training_batches(images.train_split, order, **views, **sizes, rank=0, world_size=1, num_workers=num_workers)
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_by_url_sees_the_batches_of_the_folder(folder: Path, serve: Serve, num_workers: int) -> None:
    local = batches_of(str(folder), 0)
    remote = batches_of(serve(folder.parent) + "/photos", num_workers)
    assert len(local) == len(remote) == 10
    for one, other in zip(local, remote, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_training_from_a_store_or_a_mounted_url_sees_the_batches_of_the_folder(folder: Path) -> None:
    fsspec.filesystem("memory").put(str(folder), "/bucket/photos", recursive=True)
    local = batches_of(str(folder), 0)
    for url in ("memory://bucket/photos", folder.as_uri()):
        remote = batches_of(url, 0)
        assert len(local) == len(remote) == 10
        assert all(
            torch.equal(one[name], other[name]) for one, other in zip(local, remote, strict=True) for name in one
        )


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_an_object_store_without_its_package_is_refused_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    shard = f"{protocol}://bucket/photos/train-000000.tar"
    for attempt in (
        lambda: open_shards(f"{protocol}://bucket/photos"),
        lambda: build_index(shard, tmp_path / "indexed"),
    ):
        with pytest.raises(
            ValueError, match=f"{protocol}://bucket/.* cannot be read .*pip install '{package}'"
        ) as raised:
            attempt()
        assert "\n" not in str(raised.value)


def test_a_data_set_by_url_is_the_one_on_the_disk(folder: Path, serve: Serve) -> None:
    local, remote = open_shards(folder), open_shards(f"{serve(folder)}/")
    assert (remote.name, remote.classes, remote.content_hash) == (local.name, local.classes, local.content_hash)
    assert remote.splits == local.splits
    assert np.array_equal(remote.split("test").keys, local.split("test").keys)


def test_the_index_is_copied_once_and_anew_for_shards_built_anew(
    folder: Path, serve: Serve, cache: Path, photos: Path
) -> None:
    url = serve(folder)
    first = index_folder(url)
    samples = samples_folder(first, "train") / "key.npy"
    copied_at = samples.stat().st_mtime_ns
    assert index_folder(url) == first and samples.stat().st_mtime_ns == copied_at
    assert [path.name for path in cache.iterdir()] == [first.name]
    assert first.name.startswith("127.0.0.1")
    shutil.rmtree(folder)
    build_shards(photos, folder, seed=1)
    assert index_folder(url) != first
    assert open_shards(url).content_hash == open_shards(folder).content_hash


@pytest.mark.parametrize("quick", [True, False])
def test_a_folder_by_url_is_checked(folder: Path, serve: Serve, quick: bool) -> None:
    url = serve(folder)
    report = check_shards(url, quick=quick)
    assert report.problems == [] and report.folder == url
    (folder / "train-000001.tar").write_bytes(b"cut")
    (folder / "test-000000.tar").unlink()
    found = {(problem.file, problem.kind) for problem in check_shards(url, quick=quick).problems}
    assert {(f"{url}/train-000001.tar", "size"), (f"{url}/test-000000.tar", "missing_shard")} <= found


def test_what_is_no_shard_folder_is_refused_in_one_line_and_leaves_nothing(
    folder: Path, serve: Serve, cache: Path
) -> None:
    url = serve(folder.parent)
    for address, said in (
        (url, "index.json is missing; give the URL of a folder"),
        ("http://127.0.0.1:1/photos", "http://127.0.0.1:1/photos/index.json cannot be read"),
        ("nowhere://photos", "nowhere://photos/index.json cannot be read .*install what is missing"),
    ):
        with pytest.raises(ValueError, match=said) as raised:
            open_shards(address, num_retries=1)
        assert "\n" not in str(raised.value)
    assert list(cache.iterdir()) == []


def test_a_table_that_is_not_the_index_s_is_refused(folder: Path, serve: Serve, cache: Path) -> None:
    label = samples_folder(folder, "train") / "label.npy"
    np.save(label, 1 - np.load(label))
    with pytest.raises(ValueError, match=r"/train\.samples differs from the hash in index\.json"):
        open_shards(serve(folder))
    assert list(cache.iterdir()) == []
