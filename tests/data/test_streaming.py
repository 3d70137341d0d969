"""Plain shards through webdataset's pipeline: what comes is counted, what runs code is refused."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from arvis_scale.data.decode import decode_rgb
from arvis_scale.data.faults import REASONS, BadSample
from arvis_scale.data.streaming import stream_batches

TarWriter = Callable[..., list[tuple[int, int]]]


def view(data: bytes, *, sample_seed: int) -> npt.NDArray[np.uint8]:
    return np.asarray(decode_rgb(data).resize((8, 8))).transpose(2, 0, 1)


def stream(urls: list[Path], **changes: Any) -> list[dict[str, Any]]:
    return list(stream_batches([str(url) for url in urls], view, **{"batch_size": 4, "seed": 0, **changes}))


@pytest.fixture
def tars(tmp_path: Path, write_tar: TarWriter, image_bytes: Callable[..., bytes]) -> list[Path]:
    """Three plain shards of 6 labelled images."""
    paths = [tmp_path / f"{number}.tar" for number in range(3)]
    for shard, path in enumerate(paths):
        members = []
        for number in range(6 * shard, 6 * shard + 6):
            members += [(f"{number:03d}.jpg", image_bytes(number, "JPEG")), (f"{number:03d}.cls", b"%d" % number)]
        write_tar(path, members)
    return paths


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_sample_comes_once_and_is_counted(
    tars: list[Path], num_workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        batches = stream(tars, num_workers=num_workers)
    assert sorted(label for batch in batches for label in batch["labels"].tolist()) == list(range(18))
    assert batches[0]["images"].shape == (4, 3, 8, 8)
    assert "no exact order, no resume" in caplog.text and "--index-only" in caplog.text
    assert "18 samples came from 3 shards, 6 to 6 from each" in caplog.text


def test_an_epoch_is_shuffled_by_its_seed(tars: list[Path]) -> None:
    orders = [[label for batch in stream(tars, seed=seed) for label in batch["labels"].tolist()] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_a_cut_shard_shows_in_the_count(tars: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    tars[1].write_bytes(tars[1].read_bytes()[: 512 * 10])
    with caplog.at_level(logging.WARNING):
        num_samples = sum(len(batch["images"]) for batch in stream(tars, on_bad_sample="skip"))
    assert num_samples < 18
    assert f"{num_samples} samples came from 3 shards, {num_samples - 12} to 6 from each" in caplog.text


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_image_is_met_by_policy(tmp_path: Path, write_tar: TarWriter, tars: list[Path], num_workers: int) -> None:
    write_tar(tmp_path / "bad.tar", [("a.jpg", b"text"), ("b.jpg", b"")])
    with pytest.raises(BadSample, match=r"bad\.tar: sample . does not decode .*\(not_an_image\)"):
        stream([*tars, tmp_path / "bad.tar"], num_workers=num_workers)
    batches = stream([*tars, tmp_path / "bad.tar"], on_bad_sample="skip", num_workers=num_workers)
    assert sum(len(batch["labels"]) for batch in batches) == 18
    assert sum(batch["bad_samples"][REASONS.index("not_an_image")].item() for batch in batches) == 2


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("content", [None, b"garbage" * 1000])
def test_a_shard_that_is_none_stops_the_stream_in_one_line(
    tars: list[Path], content: bytes | None, num_workers: int
) -> None:
    tars[1].unlink()
    if content is not None:
        tars[1].write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be read .*1\.tar") as caught:
        stream(tars, num_workers=num_workers)
    assert "\n" not in str(caught.value)


def test_commands_and_pickles_are_refused_unless_allowed_and_never_unpickled(
    tars: list[Path], tmp_path: Path, write_tar: TarWriter, image_bytes: Callable[..., bytes]
) -> None:
    with pytest.raises(ValueError, match="would run a command"):
        next(stream_batches([f"pipe:cat {tars[0]}"], view, batch_size=4, seed=0))
    allowed = stream_batches([f"pipe:cat {tars[0]}"], view, batch_size=6, seed=0, allow_unsafe_shards=True)
    assert len(next(allowed)["images"]) == 6

    class Explodes:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    members = [("a.jpg", image_bytes(0, "JPEG")), ("a.pyd", pickle.dumps(Explodes()))]
    write_tar(tmp_path / "pickled.tar", members)
    with pytest.raises(ValueError, match=r"pickled\.tar: sample a has a pickled member \.pyd"):
        stream([tmp_path / "pickled.tar"])
    assert len(stream([tmp_path / "pickled.tar"], allow_unsafe_shards=True)) == 1
    assert not (tmp_path / "exploded").exists()
