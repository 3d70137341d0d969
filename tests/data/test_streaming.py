"""Plain shards through webdataset's pipeline: full batches for ever, what is bad counted, what runs code refused."""

from __future__ import annotations

import logging
import pickle
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from arvis_scale.config import DataConfig
from arvis_scale.data.decode import decode_rgb
from arvis_scale.data.faults import REASONS, BadSample
from arvis_scale.data.selection import select_images
from arvis_scale.data.streaming import Stream, streamed_batches

TarWriter = Callable[..., list[tuple[int, int]]]


def view(data: bytes, *, sample_seed: int) -> npt.NDArray[np.uint8]:
    return np.asarray(decode_rgb(data).resize((8, 8))).transpose(2, 0, 1)


def stream(
    urls: list[Any], num_batches: int, *, rank: int = 0, world_size: int = 1, num_workers: int = 0, **changes: Any
) -> list[dict[str, Any]]:
    what = Stream([str(url) for url in urls], view, **{"seed": (0, 0), "batch_size": 3, **changes})
    layout = {"rank": rank, "world_size": world_size, "num_workers": num_workers}
    return list(streamed_batches(what, **layout, num_batches=num_batches))


def labels_of(batches: list[dict[str, Any]]) -> list[int]:
    return [label for batch in batches for label in batch["labels"].tolist()]


@pytest.fixture
def tars(tmp_path: Path, write_tar: TarWriter, image_bytes: Callable[..., bytes]) -> list[Path]:
    """Four plain shards of 6 labelled images."""
    paths = [tmp_path / f"{number}.tar" for number in range(4)]
    for shard, path in enumerate(paths):
        members = []
        for number in range(6 * shard, 6 * shard + 6):
            members += [(f"{number:03d}.jpg", image_bytes(number, "JPEG")), (f"{number:03d}.cls", b"%d" % number)]
        write_tar(path, members)
    return paths


@pytest.mark.parametrize("num_workers", [0, 2, 9])
def test_a_pass_of_one_process_sees_every_image_once(tars: list[Path], num_workers: int) -> None:
    batches = stream(tars, 24, num_workers=num_workers)
    assert all(batch["images"].shape == (3, 3, 8, 8) for batch in batches)
    # Workers keep pace here, since they have equal numbers of shards.
    assert set(Counter(labels_of(batches)).values()) == {3}
    assert set(labels_of(batches[:8])) == set(range(24))


def test_processes_share_the_shards_of_each_pass(tars: list[Path]) -> None:
    passes = [stream(tars, 20, rank=rank, world_size=2) for rank in (0, 1)]
    of_first = set()
    for number in range(5):
        first, second = (labels_of(batches[4 * number : 4 * number + 4]) for batches in passes)
        assert sorted(first + second) == list(range(24))
        of_first.add(frozenset(first))
    assert len(of_first) > 1


def test_order_and_crops_are_drawn_from_the_seed_and_the_step_it_goes_on_from(tars: list[Path]) -> None:
    streams = [stream(tars, 16, seed=seed) for seed in ((0, 0), (0, 0), (1, 0), (0, 100))]
    orders = [labels_of(batches) for batches in streams]
    assert orders[0] == orders[1] and orders[0] not in orders[2:] and orders[2] != orders[3]
    assert orders[0][:24] != orders[0][24:] and orders[0][:24] != sorted(orders[0][:24])
    seeds = [seed for batch in streams[0] for seed in batch["sample_seeds"].tolist()]
    assert len(set(seeds)) == len(seeds) == 48


def test_a_cut_shard_shows_in_the_log(tars: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    tars[1].write_bytes(tars[1].read_bytes()[: 512 * 10])
    tars[2].write_bytes(b"\0" * 10240)
    with caplog.at_level(logging.INFO):
        stream(tars, 9, skips=True)
    assert "a pass over 4 shards: 14 images, 0 to 6 of each" in caplog.text
    assert f"{tars[2]} gave no image" in caplog.text


def test_a_worker_whose_shards_are_empty_waits_for_the_next_pass(tars: list[Path]) -> None:
    tars[2].write_bytes(b"\0" * 10240)
    assert set(labels_of(stream(tars, 40, num_workers=4))) == {*range(12), *range(18, 24)}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_image_is_met_by_policy(tmp_path: Path, write_tar: TarWriter, tars: list[Path], num_workers: int) -> None:
    write_tar(tmp_path / "bad.tar", [("a.jpg", b"text"), ("b.jpg", b"")])
    with pytest.raises(BadSample, match=r"bad\.tar: sample . does not decode .*\(not_an_image\)"):
        stream([*tars, tmp_path / "bad.tar"], 9, num_workers=num_workers)
    batches = stream([*tars, tmp_path / "bad.tar"], 9, skips=True, num_workers=num_workers)
    assert all(len(batch["images"]) == 3 for batch in batches)
    assert 2 <= sum(batch["bad_samples"][REASONS.index("not_an_image")].item() for batch in batches) <= 4
    with pytest.raises(ValueError, match="hold no image that can be used"):
        stream([tmp_path / "bad.tar"], 1, skips=True, num_workers=num_workers)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("content", [None, b"garbage" * 1000, b"\x1f\x8b\x08"])
def test_a_shard_that_is_none_stops_the_stream_in_one_line(
    tars: list[Path], content: bytes | None, num_workers: int
) -> None:
    tars[1].unlink()
    if content is not None:
        tars[1].write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be read .*1\.tar") as caught:
        stream(tars, 9, num_workers=num_workers)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    ("content", "reason"), [(None, "missing_shard"), (b"garbage" * 1000, "read_error"), (b"\x1f\x8b\x08", "read_error")]
)
def test_under_skip_a_shard_that_is_none_is_counted_in_each_pass(
    tars: list[Path], content: bytes | None, reason: str, num_workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    tars[1].unlink()
    if content is not None:
        tars[1].write_bytes(content)
    batches = stream(tars, 18, skips=True, num_workers=num_workers)
    assert set(labels_of(batches)) == {*range(6), *range(12, 24)}
    counts = dict(zip(REASONS, sum(batch["bad_samples"] for batch in batches).tolist(), strict=True))
    assert 2 <= counts.pop(reason) <= 4  # three passes: the last may end before it, and a fourth is begun
    assert not any(counts.values())
    if num_workers == 0:
        assert "1.tar" in caplog.text
    with pytest.raises(ValueError, match="hold no image that can be used"):
        stream([tars[1]], 1, skips=True, num_workers=num_workers)


def test_a_shard_cut_inside_an_image_is_met_by_policy(tars: list[Path]) -> None:
    with tarfile.open(tars[1]) as shard:
        inside = shard.getmembers()[6].offset_data + 20
    tars[1].write_bytes(tars[1].read_bytes()[:inside])
    with pytest.raises(ValueError, match=r"a shard cannot be read .*1\.tar.*; fetch it again or leave it out"):
        stream(tars, 9)
    batches = stream(tars, 7, skips=True)  # one pass, of 3 + 3 * 6 images
    assert set(labels_of(batches)) == {*range(9), *range(12, 24)}
    assert sum(batch["bad_samples"] for batch in batches)[REASONS.index("read_error")] == 1


def test_a_member_that_comes_twice_is_met_by_policy(
    tmp_path: Path, tars: list[Path], write_tar: TarWriter, image_bytes: Callable[..., bytes]
) -> None:
    image = image_bytes(0, "JPEG")
    write_tar(tmp_path / "twice.tar", [("a.jpg", image), ("a.jpg", image), ("b.jpg", image)])
    with pytest.raises(ValueError, match="a shard cannot be read .*duplicate file name"):
        stream([tmp_path / "twice.tar"], 1)
    batches = stream([tmp_path / "twice.tar", *tars], 8, skips=True)  # 24 of the 26 images of one pass
    assert sum(batch["bad_samples"] for batch in batches)[REASONS.index("read_error")] == 1
    assert len({*labels_of(batches)} - {-1}) >= 22


def test_names_out_of_the_folder_or_of_no_encoding_and_missing_labels_are_read(
    tmp_path: Path, write_tar: TarWriter, image_bytes: Callable[..., bytes]
) -> None:
    names = ["../../escape", "/etc/absolute", "caf\udce9"]
    members = [(f"{name}.jpg", image_bytes(number, "JPEG")) for number, name in enumerate(names)]
    write_tar(tmp_path / "names.tar", [*members, ("a.cls", b"cat"), ("bad\udce9.jpg", b"text")])
    (batch,) = stream([tmp_path / "names.tar"], 1, skips=True)
    assert batch["images"].shape == (3, 3, 8, 8)
    assert batch["labels"].tolist() == [-1, -1, -1]
    assert [path.name for path in tmp_path.iterdir()] == ["names.tar"]
    with pytest.raises(BadSample, match=r"sample bad\\xe9 does not decode") as caught:
        stream([tmp_path / "names.tar"], 2)
    str(caught.value).encode()


def test_fewer_shards_than_processes_are_refused(tars: list[Path]) -> None:
    with pytest.raises(ValueError, match="each of 5 processes shards of its own, and there are 4; .*--index-only"):
        stream(tars, 1, world_size=5)


def test_pickled_members_are_refused_unless_allowed_and_never_unpickled(
    tmp_path: Path, write_tar: TarWriter, image_bytes: Callable[..., bytes]
) -> None:
    class Explodes:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    members = [("a.jpg", image_bytes(0, "JPEG")), ("a.pyd", pickle.dumps(Explodes()))]
    write_tar(tmp_path / "pickled.tar", members)
    with pytest.raises(ValueError, match=r"pickled\.tar: sample a has a pickled member \.pyd"):
        stream([tmp_path / "pickled.tar"], 1)
    assert len(stream([tmp_path / "pickled.tar"], 1, batch_size=1, allow_unsafe_shards=True)) == 1
    assert not (tmp_path / "exploded").exists()


def test_commands_are_refused_unless_allowed(tars: list[Path]) -> None:
    config = DataConfig(shards=f"pipe:cat {tars[0]}", streaming=True)
    with pytest.raises(ValueError, match="would run a command"):
        select_images(config, None)
    config.allow_unsafe_shards = True
    assert len(stream(list(select_images(config, None).dataset.urls), 2)) == 2


def test_a_store_that_webdataset_cannot_open_is_refused_with_what_can(tars: list[Path]) -> None:
    config = DataConfig(shards="s3://bucket/{0..3}.tar", streaming=True)
    with pytest.raises(ValueError, match="s3://bucket/0.tar: data.streaming=true reads .* DST --index-only"):
        select_images(config, None)
    config.shards = tars[0].as_uri()
    assert len(stream(list(select_images(config, None).dataset.urls), 2)) == 2


def test_shards_come_over_http(tars: list[Path], serve: Callable[[Path], str]) -> None:
    config = DataConfig(shards=serve(tars[0].parent) + "/{0..3}.tar", streaming=True)
    assert set(labels_of(stream(list(select_images(config, None).dataset.urls), 8))) == set(range(24))


def test_the_shards_are_those_of_the_train_split_and_known_by_their_names(tmp_path: Path, tars: list[Path]) -> None:
    for name in ("train-0.tar", "train-1.tar", "test-0.tar"):
        (tmp_path / "some" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "some" / name).write_bytes(tars[0].read_bytes())
    images = select_images(DataConfig(shards=str(tmp_path / "some"), streaming=True), None)
    assert [Path(url).name for url in images.dataset.urls] == ["train-0.tar", "train-1.tar"]
    assert images.subset.name == "stream-of-2-shards" and images.subset.unique_images is None
    (tmp_path / "some").rename(tmp_path / "moved")
    moved = select_images(DataConfig(shards=str(tmp_path / "moved"), streaming=True), None)
    assert moved.dataset.content_hash == images.dataset.content_hash
    with pytest.raises(ValueError, match="names no shard of split 'val'"):
        select_images(DataConfig(shards=str(tmp_path / "moved"), streaming=True, train_split="val"), None)


def test_validation_images_come_from_shards_with_an_index(tars: list[Path], shards: Path) -> None:
    config = DataConfig(shards=str(tars[0].parent / "{0..3}.tar"), streaming=True)
    assert len(select_images(config, None).validation_indices) == 0
    config.validation_shards, config.validation_images = str(shards), 5
    images = select_images(config, None)
    assert len(set(images.validation_indices.tolist())) == 5 and len(images.validation_split) == 8
