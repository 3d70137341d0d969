"""Faulty and odd images, each met by policy in build, check and training."""

from __future__ import annotations

import resource
import struct
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from arvis_scale.data.build import build_shards
from arvis_scale.data.check import check_shards
from arvis_scale.data.decode import decode_rgb
from arvis_scale.data.faults import REASONS, BadSample
from arvis_scale.data.loader import evaluation_batches, training_batches
from arvis_scale.data.order import SampleOrder
from arvis_scale.data.sample_sets import ListedSamples
from arvis_scale.data.shards import open_shards
from arvis_scale.data.streaming import Stream, streamed_batches
from arvis_scale.data.views import training_view

ShardWriter = Callable[..., Path]

# Reason under which each bad image is counted.
BAD_IMAGES = {
    "empty": "not_an_image",
    "text": "not_an_image",
    "gif": "not_an_image",
    "cut_jpeg": "damaged_image",
    "cut_png": "damaged_image",
    "png_bomb": "too_large",
    "jpeg_bomb": "too_large",
}
ODD_IMAGES = ("cmyk", "grey16", "palette", "palette_alpha", "animated_png", "animated_webp", "exif_rotated")


def picture(seed: int = 0) -> Image.Image:
    corners = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((200, 160), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def bad_image(name: str) -> bytes:
    jpeg, png = encoded(picture(), "JPEG"), encoded(picture(), "PNG")
    frame = jpeg.index(b"\xff\xc0")  # the frame's header: length, bits, height, width
    return {
        "empty": lambda: b"",
        "text": lambda: b"no image at all\n" * 20,
        "gif": lambda: encoded(picture(), "GIF"),
        "cut_jpeg": lambda: jpeg[: len(jpeg) // 2],
        "cut_png": lambda: png[: len(png) // 2],
        "png_bomb": png_bomb,
        "jpeg_bomb": lambda: jpeg[: frame + 5] + struct.pack(">HH", 30_000, 30_000) + jpeg[frame + 9 :],
    }[name]()


def png_bomb() -> bytes:
    """A whole PNG of 30,000 x 30,000 black pixels, in about half a megabyte."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(3_751)) for _ in range(30_000)) + packer.flush()  # 1 bit a pixel
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def odd_image(name: str) -> bytes:
    image, frames = picture(), [picture(1), picture(2)]
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    return {
        "cmyk": lambda: encoded(image.convert("CMYK"), "JPEG"),
        "grey16": lambda: encoded(Image.fromarray(grey), "PNG"),
        "palette": lambda: encoded(image.convert("P"), "PNG"),
        "palette_alpha": lambda: encoded(image.convert("P"), "PNG", transparency=bytes(range(256))),
        "animated_png": lambda: encoded(image, "PNG", save_all=True, append_images=frames),
        "animated_webp": lambda: encoded(image, "WEBP", save_all=True, append_images=frames, lossless=True),
        "exif_rotated": lambda: encoded(image, "JPEG", exif=exif),
    }[name]()


def train(folder: Path, samples: list[int], **changes: Any) -> list[dict[str, torch.Tensor]]:
    """All batches of 4 of two epochs over `samples`."""
    split = open_shards(folder).split("train")
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
        "num_samples": 2 * len(samples) // 4 * 4,
    }
    order = SampleOrder(ListedSamples(np.array(samples), split.shard_sizes), seed=0)
    return list(training_batches(split, order, **{**settings, **changes}))


def counts_of(batches: list[dict[str, torch.Tensor]]) -> dict[str, int]:
    total = sum((batch["bad_samples"] for batch in batches), torch.zeros(len(REASONS), dtype=torch.int64))
    return {reason: count for reason, count in zip(REASONS, total.tolist(), strict=True) if count}


@pytest.fixture(scope="module")
def bad_shards(tmp_path_factory: pytest.TempPathFactory, write_shards: ShardWriter) -> Path:
    """Each bad image between whole ones, 5 to a shard."""
    images = []
    for number, name in enumerate(BAD_IMAGES):
        images += [(f"{name}_before", encoded(picture(2 * number), "JPEG"), 0), (name, bad_image(name), 1)]
        images.append((f"{name}_after", encoded(picture(2 * number + 1), "PNG"), 1))
    return write_shards(tmp_path_factory.mktemp("bad") / "shards", images, samples_per_shard=5)


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_bad_image_raises_with_shard_key_offset_and_reason(bad_shards: Path, name: str) -> None:
    split = open_shards(bad_shards).split("train")
    sample = 3 * list(BAD_IMAGES).index(name) + 1
    with pytest.raises(BadSample) as caught:
        split.image(sample)
    error = caught.value
    assert (error.key, error.reason) == (name, BAD_IMAGES[name])
    assert Path(error.shard).name == f"train-{sample // 5:06d}.tar"
    image = bad_image(name)
    assert Path(error.shard).read_bytes()[error.offset : error.offset + len(image)] == image
    assert "\n" not in str(error) and name in str(error) and "shards check" in str(error)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_stops_at_a_bad_image_in_one_line(bad_shards: Path, num_workers: int) -> None:
    with pytest.raises(BadSample, match="sample text at byte") as caught:
        train(bad_shards, list(range(3, 7)), num_workers=num_workers)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_skips_bad_images_and_counts_each_one(bad_shards: Path, num_workers: int) -> None:
    samples = list(range(3 * len(BAD_IMAGES)))
    batches = train(
        bad_shards, samples, num_workers=num_workers, num_samples=20, on_bad_sample="skip", micro_batch_size=2
    )
    assert [len(batch["images"]) for batch in batches] == [2] * 10
    assert all(image.any() for batch in batches for image in batch["images"])
    # One epoch is 21 samples, so all but at most one bad image are met, and their replacements may be bad as well.
    found = counts_of(batches)
    assert set(found) == set(BAD_IMAGES.values()) and sum(found.values()) >= len(BAD_IMAGES) - 1
    again = train(bad_shards, samples, num_samples=20, on_bad_sample="skip", micro_batch_size=2)
    assert all(torch.equal(one["images"], other["images"]) for one, other in zip(batches, again, strict=True))


def test_evaluation_skips_bad_images_with_weight_0(bad_shards: Path) -> None:
    split = open_shards(bad_shards).split("train")
    settings: dict[str, Any] = {"image_size": 8, "batch_size": 4, "rank": 0, "world_size": 1, "num_workers": 0}
    batches = list(evaluation_batches(split, np.arange(len(split)), on_bad_sample="skip", **settings))
    weights = torch.cat([batch["weights"] for batch in batches])
    assert np.flatnonzero(weights == 0).tolist() == list(range(1, len(split), 3))
    assert sum(counts_of(batches).values()) == len(BAD_IMAGES)
    with pytest.raises(BadSample):
        list(evaluation_batches(split, np.arange(len(split)), **settings))


def streamed(path: Path, num_batches: int, *, skips: bool) -> list[dict[str, torch.Tensor]]:
    """Batches of 7, which is a whole pass over the odd images."""
    options: dict[str, Any] = {"image_size": 8, "crop_scale": (0.3, 1.0), "crop_ratio": (0.75, 1.5)}
    view = partial(training_view, horizontal_flip=0.5, decoding="fast", **options)
    stream = Stream([str(path)], view, seed=(0, 0), batch_size=len(ODD_IMAGES), skips=skips)
    return list(streamed_batches(stream, rank=0, world_size=1, num_workers=0, num_batches=num_batches))


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_stream_stops_at_a_bad_image_or_counts_it(tmp_path: Path, write_tar: Callable[..., Any], name: str) -> None:
    members = [(f"{odd}.jpg", odd_image(odd)) for odd in ODD_IMAGES]
    write_tar(tmp_path / "a.tar", [*members, (f"{name}.jpg", bad_image(name))])
    with pytest.raises(BadSample, match=rf"a\.tar: sample {name} does not decode .*\({BAD_IMAGES[name]}\)") as caught:
        streamed(tmp_path / "a.tar", 2, skips=False)
    assert "\n" not in str(caught.value)
    batches = streamed(tmp_path / "a.tar", 3, skips=True)  # the odd images alone, three times
    assert all(batch["images"].shape == (7, 3, 8, 8) for batch in batches)
    assert set(counts_of(batches)) == {BAD_IMAGES[name]}
    assert 2 <= counts_of(batches)[BAD_IMAGES[name]] <= 3


def test_the_check_names_every_bad_image(bad_shards: Path) -> None:
    problems = check_shards(bad_shards).problems
    assert {problem.key: problem.kind for problem in problems} == BAD_IMAGES


def test_a_build_skips_bad_images_and_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "cat"
    folder.mkdir(parents=True)
    for name in BAD_IMAGES:
        (folder / f"{name}.jpg").write_bytes(bad_image(name))
    for name in ODD_IMAGES:
        (folder / f"{name}.jpg").write_bytes(odd_image(name))
    report = build_shards(tmp_path / "source", tmp_path / "shards")
    assert {Path(image.path).stem for image in report.skipped} == set(BAD_IMAGES)
    assert all(image.reason and "\n" not in image.reason for image in report.skipped)
    assert report.num_samples == {"train": len(ODD_IMAGES)}
    assert check_shards(tmp_path / "shards").problems == []


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_build_told_to_raise_names_the_bad_image_and_writes_nothing(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "source" / "cat"
    folder.mkdir(parents=True)
    (folder / f"{name}.jpg").write_bytes(bad_image(name))
    (folder / "good.jpg").write_bytes(odd_image("cmyk"))
    said = rf"1 image files cannot be used, the first is .*{name}\.jpg: .*--on-bad-sample skip"
    with pytest.raises(ValueError, match=said) as caught:
        build_shards(tmp_path / "source", tmp_path / "shards", on_bad_sample="raise")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    build_shards(tmp_path / "source", tmp_path / "shards")
    with pytest.raises(ValueError, match=said):  # of a finished build too
        build_shards(tmp_path / "source", tmp_path / "shards", on_bad_sample="raise")


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_an_odd_image_is_read_as_8_bit_rgb(tmp_path: Path, write_shards: ShardWriter, name: str) -> None:
    folder = write_shards(tmp_path / "shards", [("a", odd_image(name), 0)], samples_per_shard=1)
    image = open_shards(folder).split("train").image(0)
    assert (image.mode, image.size) == ("RGB", (200, 160))  # EXIF turns nothing: pixels are taken as they are stored
    # Animations show their first picture; only the JPEGs lose anything against what they were made from.
    made_from = picture().convert({"grey16": "L", "palette": "P", "palette_alpha": "P"}.get(name, "RGB")).convert("RGB")
    distance = np.abs(np.asarray(image).astype(float) - np.asarray(made_from)).mean()
    assert distance <= (3.0 if name in ("cmyk", "exif_rotated") else 0.0)
    assert check_shards(folder).problems == []
    (batch,) = train(folder, [0], num_samples=4)
    assert batch["images"].shape == (4, 3, 8, 8)


def test_a_bomb_costs_no_memory() -> None:
    data = png_bomb()
    assert len(data) < 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes
    with pytest.raises(ValueError, match="exceeds limit"):
        decode_rgb(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
