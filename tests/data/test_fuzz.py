"""Whatever bytes come, readers give a right result or a `ValueError` in one line: no other exception, no hang.

Runs for about 30 seconds with fixed seeds. `FUZZ_SECONDS=600` goes on with other seeds for that long (`make fuzz`); a
failure prints the changes that lead to it.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import resource
import shutil
import tarfile
import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from arvis_scale.data.archives import tar_members
from arvis_scale.data.check import check_shards
from arvis_scale.data.decode import UnreadableImageError, decode_rgb
from arvis_scale.data.faults import BadSample
from arvis_scale.data.index import SampleTable, read_index, samples_folder
from arvis_scale.data.shards import open_shards
from arvis_scale.data.streaming import Stream, streamed_batches
from arvis_scale.data.views import training_view

FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
NUM_TARGETS = 7
SLOWEST_ANSWER_SECONDS = 10.0
BLOCK = tarfile.BLOCKSIZE

# One change to some bytes: (what, where as a fraction, value).
Change = tuple[str, float, bytes]
_change = st.tuples(
    st.sampled_from(["replace", "insert", "delete", "cut", "repeat"]),
    st.floats(0, 1, exclude_max=True),
    st.one_of(
        st.binary(min_size=1, max_size=8),
        st.sampled_from([b"\x00", b"\xff", b"\x80\xff\xff\xff", b"77777777777\0", b"-1", b"1e999", b"null", b"[[[["]),
    ),
)
changes = st.lists(_change, min_size=1, max_size=6)


def changed(data: bytes, all_changes: list[Change]) -> bytes:
    """Apply the changes one after the other."""
    for what, where, value in all_changes:
        place = int(where * len(data))
        if what == "replace":
            data = data[:place] + value + data[place + len(value) :]
        elif what == "insert":
            data = data[:place] + value + data[place:]
        elif what == "delete":
            data = data[:place] + data[place + len(value) :]
        elif what == "cut":
            data = data[:place]
        else:
            data = data[:place] + data[max(0, place - 600) : place] * 2 + data[place:]
    return data


def fuzz(target: Callable[[Any], None], inputs: st.SearchStrategy[Any], *, num_examples: int) -> None:
    """Call `target` on examples; on more of them, under other seeds, until the share of `FUZZ_SECONDS` is used up."""
    end = time.monotonic() + FUZZ_SECONDS / NUM_TARGETS

    def timed(value: Any) -> None:
        start = time.monotonic()
        target(value)
        assert time.monotonic() - start < SLOWEST_ANSWER_SECONDS

    for number in count():
        run = settings(
            max_examples=num_examples,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )(given(inputs)(timed))
        seed(number)(run)()
        if time.monotonic() >= end:
            break
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4_000_000  # kilobytes


def one_line(error: ValueError) -> bool:
    return "\n" not in str(error) and len(str(error)) > 0


def _tar(tar_format: int, names: list[str], **pax_headers: str) -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 700, pax_headers
            archive.addfile(member, BytesIO(bytes(700)))
    return buffer.getvalue()


TARS = [
    _tar(tarfile.USTAR_FORMAT, ["a.jpg", "a.cls", "b.jpg"]),
    _tar(tarfile.GNU_FORMAT, ["a" * 150 + ".jpg", "b.jpg"]),
    _tar(tarfile.PAX_FORMAT, ["ä" * 90 + ".jpg", "b.jpg"]),
    _tar(tarfile.PAX_FORMAT, ["a.jpg", "b.jpg"], size="-1024"),
    _tar(tarfile.PAX_FORMAT, ["a.jpg", "b.jpg"], size="9" * 40, mtime="1e999"),
    _tar(tarfile.PAX_FORMAT, ["a.jpg", "b.jpg"], **{"GNU.sparse.map": "1,2,3"}),
    _tar(tarfile.PAX_FORMAT, ["a.jpg", "b.jpg"], **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
]


def with_right_checksums(data: bytes) -> bytes:
    """Give every header block its checksum, without which a reader looks at nothing else in it."""
    out = bytearray(data)
    for start in range(0, len(out) - BLOCK + 1, BLOCK):
        if out[start + 257 : start + 262] == b"ustar":
            out[start + 148 : start + 156] = b" " * 8
            out[start + 148 : start + 156] = b"%06o\0 " % sum(out[start : start + BLOCK])
    return bytes(out)


def test_any_bytes_as_a_tar(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"

    def read(value: tuple[int, list[Change], bool]) -> None:
        number, all_changes, mended = value
        data = changed(TARS[number], all_changes)
        path.write_bytes(with_right_checksums(data) if mended else data)
        try:
            members = list(tar_members(path))
        except ValueError as error:
            assert one_line(error)
        else:
            assert all(0 <= member.offset < len(data) and member.size >= 0 for member in members)

    fuzz(read, st.tuples(st.integers(0, len(TARS) - 1), changes, st.booleans()), num_examples=1500)


# webdataset leaves a damaged file to the garbage collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_any_bytes_as_a_streamed_shard(
    tmp_path: Path, write_tar: Callable[..., Any], image_bytes: Callable[..., bytes]
) -> None:
    whole, path = tmp_path / "whole.tar", tmp_path / "a.tar"
    write_tar(whole, [(f"{number}.png", image_bytes(number)) for number in range(4)])
    tars = [whole.read_bytes(), *TARS]
    tars += [compress(tars[0]) for compress in (gzip.compress, bz2.compress, lzma.compress)]
    view = partial(training_view, image_size=8, crop_scale=(0.3, 1.0), crop_ratio=(0.75, 1.5), horizontal_flip=0.5)

    def read(value: tuple[int, list[Change], bool, bool]) -> None:
        number, all_changes, mended, skips = value
        data = changed(tars[number], all_changes)
        path.write_bytes(with_right_checksums(data) if mended else data)
        urls = [str(whole), str(path)]
        stream = Stream(urls, partial(view, decoding="fast"), seed=(0,), batch_size=2, skips=skips)
        try:
            batches = list(streamed_batches(stream, rank=0, world_size=1, num_workers=0, num_batches=3))
        except ValueError as error:
            assert not skips
            assert one_line(error)
        else:
            assert [batch["images"].shape for batch in batches] == [(2, 3, 8, 8)] * 3

    inputs = st.tuples(st.integers(0, len(tars) - 1), changes, st.booleans(), st.booleans())
    fuzz(read, inputs, num_examples=300)


def test_any_bytes_as_an_index(shards: Path, tmp_path: Path) -> None:
    text = (shards / "index.json").read_bytes()
    value = json.loads(text)

    def read(written: bytes) -> None:
        (tmp_path / "index.json").write_bytes(written)
        try:
            index = read_index(tmp_path)
        except ValueError as error:
            assert one_line(error)
        else:
            assert index.num_samples == sum(entry.num_samples for shard in index.splits.values() for entry in shard)

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )
    other_fields = st.tuples(st.sampled_from(sorted(value)), json_values).map(
        lambda change: json.dumps({**value, change[0]: change[1]}).encode()
    )
    fuzz(read, changes.map(lambda all_changes: changed(text, all_changes)) | other_fields, num_examples=700)


def test_any_bytes_as_a_column_of_the_index(shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(samples_folder(shards, "train"), tmp_path / "train.samples"))
    columns = {path.name: path.read_bytes() for path in folder.iterdir()}

    def read(value: tuple[str, list[Change]]) -> None:
        name, all_changes = value
        (folder / name).unlink()  # not overwritten: an earlier map of it may still be open
        (folder / name).write_bytes(changed(columns[name], all_changes))
        try:
            table = SampleTable.open(folder)
        except ValueError as error:
            assert one_line(error)
        else:
            assert table.size.shape == table.key.shape and table.offset.dtype == np.int64
        finally:
            (folder / name).write_bytes(columns[name])

    fuzz(read, st.tuples(st.sampled_from(sorted(columns)), changes), num_examples=700)


def test_any_bytes_as_an_image(image_bytes: Callable[..., bytes]) -> None:
    kinds = [("JPEG", mode) for mode in ("RGB", "CMYK", "L")] + [("PNG", mode) for mode in ("RGB", "P", "LA", "I;16")]
    kinds += [("WEBP", mode) for mode in ("RGB", "RGBA")]
    # The larger ones are decoded only as far as a view needs.
    images = [image_bytes(number, kind, (40, 30), mode) for number, (kind, mode) in enumerate(kinds)]
    images += [image_bytes(number, "JPEG", (200, 150), mode) for number, mode in enumerate(("RGB", "CMYK", "L"))]
    options: dict[str, Any] = {
        "image_size": 16,
        "crop_scale": (0.3, 1.0),
        "crop_ratio": (0.75, 1.5),
        "horizontal_flip": 0.5,
    }

    def read(value: tuple[int, list[Change]]) -> None:
        number, all_changes = value
        data = changed(images[number], all_changes)
        try:
            image = decode_rgb(data)
        except UnreadableImageError as error:
            assert one_line(error)
            with pytest.raises(UnreadableImageError):
                training_view(data, sample_seed=0, decoding="fast", **options)
        else:
            assert image.mode == "RGB"
            view = training_view(data, sample_seed=0, decoding="fast", **options)
            assert (view.shape, view.dtype) == ((3, 16, 16), np.uint8)

    fuzz(read, st.tuples(st.integers(0, len(images) - 1), changes), num_examples=1000)


def test_any_place_in_the_index(shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards, tmp_path / "shards"))
    split = open_shards(folder).split("train")
    columns = {name: np.load(folder / "train.samples" / f"{name}.npy", mmap_mode="r+") for name in ("offset", "size")}
    whole = {name: column.copy() for name, column in columns.items()}

    def read(value: tuple[int, int, int]) -> None:
        sample, offset, size = value
        columns["offset"][sample], columns["size"][sample] = offset, size
        try:
            split.image(sample)
        except BadSample as error:
            assert one_line(error) and error.key == split.key(sample)
        finally:
            for name, column in columns.items():
                column[:] = whole[name]

    numbers = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-10, 20_000)
    fuzz(read, st.tuples(st.integers(0, len(split) - 1), numbers, numbers), num_examples=700)


def test_any_change_of_a_shard_is_found(shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards, tmp_path / "shards"))
    names = sorted(entry.file for entries in read_index(folder).splits.values() for entry in entries)

    def check(value: tuple[str, list[Change]]) -> None:
        name, all_changes = value
        whole = (shards / name).read_bytes()
        damaged = changed(whole, all_changes)
        (folder / name).write_bytes(damaged)
        problems = check_shards(folder).problems
        assert (problems != []) == (damaged != whole)
        (folder / name).write_bytes(whole)

    fuzz(check, st.tuples(st.sampled_from(names), changes), num_examples=120)
