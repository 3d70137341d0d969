"""Existing WebDataset shards as a source: indexed where they are, or written anew."""

from __future__ import annotations

import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
import webdataset

from arvis_scale.data.build import build_index, build_shards
from arvis_scale.data.check import check_shards
from arvis_scale.data.index import read_index
from arvis_scale.data.shards import open_shards

ImageMaker = Callable[..., bytes]
Samples = list[dict[str, object]]


@pytest.fixture
def samples(image_bytes: ImageMaker) -> Samples:
    """Twelve samples as webdataset's writers take them."""
    return [
        {
            "__key__": f"dir.v1/{number:04d}",
            "jpg": image_bytes(number, "JPEG"),
            "cls": number % 3,
            "json": {"id": number},
            "txt": f"caption {number}",
            "pyd": {"never": "read"},
        }
        for number in range(12)
    ]


@pytest.fixture
def foreign(tmp_path: Path, samples: Samples, image_bytes: ImageMaker) -> Path:
    """Three train shards of 4 samples by ShardWriter, one validation shard by TarWriter."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    with webdataset.ShardWriter(str(folder / "set-train-%04d.tar"), maxcount=4, verbose=0) as writer:
        for sample in samples:
            writer.write(sample)
    with webdataset.TarWriter(str(folder / "set-validation-0000.tar")) as writer:
        for number, sample in enumerate(samples[:3]):
            jpg = image_bytes(100 + number, "JPEG")
            writer.write({**sample, "__key__": f"val/{number}", "jpg": jpg})
    return folder


def _tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    return path


def test_an_index_reads_what_webdataset_wrote(foreign: Path, tmp_path: Path, samples: Samples) -> None:
    before = {path.name: path.read_bytes() for path in foreign.iterdir()}
    report = build_index(foreign, tmp_path / "index")
    assert (report.name, report.classes) == ("foreign", ["0", "1", "2"])
    assert (report.num_samples, report.num_shards, report.skipped) == ({"train": 12, "val": 3}, 4, [])
    assert {path.name for path in (tmp_path / "index").iterdir()} == {"index.json", "train.samples", "val.samples"}
    assert {path.name: path.read_bytes() for path in foreign.iterdir()} == before
    split = open_shards(tmp_path / "index").split("train")
    assert split.labels is not None and split.labels.tolist() == [sample["cls"] for sample in samples]
    for row, sample in enumerate(samples):
        assert (split.key(row), split.read(row)) == (sample["__key__"], sample["jpg"])
    assert check_shards(tmp_path / "index").problems == []


def test_the_index_does_not_depend_on_the_number_of_workers(foreign: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        build_index(foreign, tmp_path / f"index{workers}", num_workers=workers)
    first, second = ((tmp_path / f"index{workers}" / "index.json").read_bytes() for workers in (1, 3))
    assert first == second


def test_rewriting_keeps_images_labels_captions_and_safe_keys(foreign: Path, tmp_path: Path, samples: Samples) -> None:
    report = build_shards(foreign, tmp_path / "shards", samples_per_shard=6)
    assert report.num_samples == {"train": 12, "val": 3} and report.classes == ["0", "1", "2"]
    urls = [str(path) for path in sorted((tmp_path / "shards").glob("train-*.tar"))]
    found = {
        sample["__key__"]: (sample["jpg"], int(sample["cls"]), sample["txt"].decode())
        for sample in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    }
    assert found == {
        str(sample["__key__"]).replace("dir.v1/", "dir_v1_"): (sample["jpg"], sample["cls"], sample["txt"])
        for sample in samples
    }
    again = build_shards(tmp_path / "shards", tmp_path / "again", samples_per_shard=6)
    assert again.content_hash == report.content_hash


def test_brace_patterns_and_single_shards(foreign: Path, tmp_path: Path) -> None:
    report = build_index(f"{foreign}/set-train-{{0000..0001}}.tar", tmp_path / "two")
    assert (report.name, report.num_samples) == ("set-train", {"train": 8})
    assert build_index(f"{foreign}/set-train-0002.tar", tmp_path / "one").num_samples == {"train": 4}
    assert build_shards(f"{foreign}/set-train-{{0000..0001}}.tar", tmp_path / "new").num_samples == {"train": 8}


def test_samples_that_cannot_be_used_are_counted_and_named(tmp_path: Path, image_bytes: ImageMaker) -> None:
    image = image_bytes(0)
    (tmp_path / "set").mkdir()
    _tar(
        tmp_path / "set" / "a.tar",
        [
            ("good.png", image),
            ("good.cls", b"1\n"),
            ("by_json.jpeg", image_bytes(1, "JPEG")),
            ("by_json.json", json.dumps({"label": 0}).encode()),
            ("no_label.png", image),
            ("no_image.cls", b"1"),
            ("empty.png", b""),
            ("empty.cls", b"1"),
            ("negative.png", image),
            ("negative.cls", b"-3"),
            ("bad_json.png", image),
            ("bad_json.json", b"{"),
            ("twice.png", image),
            ("twice.png", image),
            ("caf\udce9.png", image),
            ("segmented.seg.png", image),
            ("segmented.cls", b"1"),
            ("__meta__.json", b"{}"),
            ("._hidden.png", image),
        ],
    )
    report = build_index(tmp_path / "set", tmp_path / "index")
    assert report.num_samples == {"train": 2} and report.classes == ["0", "1"]
    assert {image.path for image in report.skipped} == {
        "no_label.png",
        "no_image.cls",
        "empty.png",
        "negative.png",
        "bad_json.png",
        "twice.png",
        "caf\\xe9.png",
        "segmented.seg.png",
    }
    assert all(image.reason.endswith("(in a.tar)") for image in report.skipped)
    assert check_shards(tmp_path / "index").problems == []  # what was left out knowingly is none
    rewritten = build_shards(tmp_path / "set", tmp_path / "shards")
    assert rewritten.num_samples == {"train": 2}
    assert len(rewritten.skipped) == len(report.skipped)


def test_shards_without_labels_are_unlabelled(tmp_path: Path, image_bytes: ImageMaker) -> None:
    (tmp_path / "set").mkdir()
    _tar(tmp_path / "set" / "a.tar", [(f"{number}.png", image_bytes(number)) for number in range(3)])
    report = build_index(tmp_path / "set", tmp_path / "index")
    assert report.classes == [] and open_shards(tmp_path / "index").split("train").labels is None


def test_equal_keys_of_two_shards_stay_two_samples(tmp_path: Path, image_bytes: ImageMaker) -> None:
    (tmp_path / "set").mkdir()
    for number in range(2):
        _tar(tmp_path / "set" / f"{number}.tar", [("0000.png", image_bytes(number))])
    assert build_index(tmp_path / "set", tmp_path / "index").num_samples == {"train": 2}
    assert build_shards(tmp_path / "set", tmp_path / "shards").num_samples == {"train": 2}
    split = open_shards(tmp_path / "shards").split("train")
    assert len({split.key(row) for row in range(2)}) == 2


@pytest.mark.parametrize("at_member", [False, True])
@pytest.mark.parametrize("build", [build_index, build_shards])
def test_a_cut_shard_is_refused_and_named(
    foreign: Path, tmp_path: Path, build: Callable[..., object], at_member: bool
) -> None:
    path = foreign / "set-train-0001.tar"
    with tarfile.open(path) as shard:
        third = shard.getmembers()[10]
    path.write_bytes(path.read_bytes()[: third.offset if at_member else third.offset_data + 1])
    with pytest.raises(ValueError, match=r"set-train-0001\.tar breaks off after") as caught:
        build(foreign, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["foreign"]


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("pipe:cat a.tar", "would run a command"),
        ("nowhere-{0..3}.tar", "nowhere-0.tar does not exist"),
        ("nowhere-{0..3}.tar.gz", "no plain .tar"),
    ],
)
@pytest.mark.parametrize("build", [build_index, build_shards])
def test_sources_that_are_no_shards_are_refused(
    tmp_path: Path, build: Callable[..., object], source: str, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        build(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def address(foreign: Path) -> Iterator[str]:
    """The address of a server of `foreign` that answers ranges."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = (foreign / self.path[1:]).read_bytes()
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            body = content[int(first) : int(last) + 1]
            self.send_response(206 if body else 416)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_remote_shards_are_indexed_where_they_are(foreign: Path, tmp_path: Path, address: str) -> None:
    pattern = "set-train-{0000..0002}.tar"
    build_index(f"{address}/{pattern}", tmp_path / "remote")
    build_index(f"{foreign}/{pattern}", tmp_path / "local")
    remote, local = (read_index(tmp_path / name) for name in ("remote", "local"))
    assert remote.content_hash == local.content_hash
    assert [entry.file for entry in remote.splits["train"]] == [
        f"{address}/set-train-{number:04d}.tar" for number in range(3)
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign", "local", "remote"]
    with pytest.raises(ValueError, match="--index-only"):
        build_shards(f"{address}/{pattern}", tmp_path / "out")
