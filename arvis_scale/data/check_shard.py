"""Reading whole shards to check them: the hash and the tar members of each, the images in parallel over all."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from arvis_scale.data.check_report import Kind, Problem
from arvis_scale.data.concurrency import map_in_order
from arvis_scale.data.decode import UnreadableImageError, image_extension
from arvis_scale.data.index import UNLABELLED, SampleTable, ShardEntry
from arvis_scale.data.remote import copy_file, is_remote
from arvis_scale.data.sources import IMAGE_SUFFIXES
from arvis_scale.data.strict_tar import StrictTarInfo
from arvis_scale.hashing import sha256_of

DIGEST_BYTES = 16
ROWS_PER_TASK = 64
LONGEST_LABEL = 64  # bytes of a .cls member that are looked at


@dataclass(frozen=True)
class CheckedShard:
    """A shard and its rows of the sample table."""

    split: str
    folder: Path
    entry: ShardEntry
    table: SampleTable

    def problem(self, row: int, kind: Kind, what: str) -> Problem:
        return Problem(self.entry.file, text_of(self.table.key[row]), kind, what, int(self.table.offset[row]))


@dataclass
class _Findings:
    """What one task found: the walk over a shard gives `places` and `labels`, a run of rows gives `digests`."""

    problems: list[Problem] = field(default_factory=list)
    is_open: bool = True
    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # member name -> offset and size of its content
    labels: dict[bytes, bytes] = field(default_factory=dict)  # member name -> content of a .cls member
    digests: list[bytes] = field(default_factory=list)


def text_of(name: bytes) -> str:
    """Return a key or a member's name for people; bytes that are no UTF-8 are written as `\\xff`."""
    return bytes(name).decode(errors="backslashreplace")


def check_contents(
    shards: Sequence[CheckedShard], skipped: set[str], progress: Callable[[int, int], None] | None
) -> Iterator[tuple[CheckedShard, list[Problem], npt.NDArray[np.void]]]:
    """Yield each shard with its problems and one digest per row, zeros where the image could not be read.

    `skipped` are names that the index left out knowingly. A shard on a server is copied to this machine while it is
    looked at.
    """
    done, total = 0, sum(len(shard.table) for shard in shards)
    with tempfile.TemporaryDirectory() as scratch:
        results = map_in_order(lambda task: task(), _tasks(shards, Path(scratch)))
        for number, shard in enumerate(shards):
            walk = next(results)
            digests: list[bytes] = []
            for _ in _runs(shard) if walk.is_open else ():
                rows = next(results)
                walk.problems += rows.problems
                digests += rows.digests
                if progress:
                    progress(done + len(digests), total)
            if walk.is_open:
                walk.problems += _disagreements(shard, walk, skipped)
            _copy_of(number, Path(scratch)).unlink(missing_ok=True)
            done += len(shard.table)
            digests = digests or [bytes(DIGEST_BYTES)] * len(shard.table)
            yield shard, walk.problems, np.array(digests, f"V{DIGEST_BYTES}")


def _runs(shard: CheckedShard) -> range:
    return range(0, len(shard.table), ROWS_PER_TASK)


def _copy_of(number: int, scratch: Path) -> Path:
    return scratch / f"{number}.tar"


def _tasks(shards: Sequence[CheckedShard], scratch: Path) -> Iterator[Callable[[], _Findings]]:
    """For each shard its walk, then its rows in runs; for one that cannot be opened only the news of that."""
    for number, shard in enumerate(shards):
        path = shard.folder / shard.entry.file
        try:
            if is_remote(shard.entry.file):
                path = _copy_of(number, scratch)
                copy_file(shard.entry.file, path)
            path.open("rb").close()
        except OSError as error:
            yield partial(_Findings, _opening_problems(shard, error), is_open=False)
            continue
        yield partial(_walk, shard, path)
        for start in _runs(shard):
            yield partial(_check_rows, shard, path, start)


def _opening_problems(shard: CheckedShard, error: OSError) -> list[Problem]:
    if isinstance(error, FileNotFoundError):  # the look at the sizes has said so
        return []
    return [Problem(shard.entry.file, None, "read_error", f"cannot be read ({error.strerror or error})")]


def _walk(shard: CheckedShard, path: Path) -> _Findings:
    """Hash a shard and list its members as any reader of tar files finds them."""
    findings = _Findings()
    file = shard.entry.file
    try:
        if sha256_of(path) != shard.entry.sha256:
            findings.problems.append(Problem(file, None, "hash", "SHA-256 differs from index.json"))
        with tarfile.open(path, "r:", tarinfo=StrictTarInfo) as archive:
            for member in archive:
                name = os.fsencode(member.name)
                if member.isdir():
                    continue
                if _is_unsafe(name) or not member.isreg():
                    what = "the member is a link or leads out of its folder"
                    findings.problems.append(Problem(file, text_of(name), "unsafe_name", what, member.offset))
                findings.places[name] = (member.offset_data, member.size)
                if name.endswith(b".cls") and member.size <= LONGEST_LABEL:
                    content = archive.extractfile(member)
                    findings.labels[name] = content.read() if content else b""
    except (tarfile.TarError, OSError) as error:
        what = f"the tar breaks off after {len(findings.places)} members ({error})"
        findings.problems.append(Problem(file, None, "cut", what))
    return findings


def _is_unsafe(name: bytes) -> bool:
    return name.startswith(b"/") or b".." in name.split(b"/")


def _check_rows(shard: CheckedShard, path: Path, start: int) -> _Findings:
    """Read and decode a run of samples through the index."""
    findings = _Findings()
    with path.open("rb", buffering=0) as file:
        for row in range(start, min(start + ROWS_PER_TASK, len(shard.table))):
            digest = bytes(DIGEST_BYTES)
            offset, size = int(shard.table.offset[row]), int(shard.table.size[row])
            if 0 <= offset <= offset + size <= shard.entry.num_bytes:  # else the check of the table has said so
                try:
                    data = os.pread(file.fileno(), size, offset)
                    if len(data) == size:
                        digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
                        image_extension(data)
                    else:
                        findings.problems.append(shard.problem(row, "cut", f"is cut: {len(data)} of {size} bytes"))
                except UnreadableImageError as error:
                    findings.problems.append(shard.problem(row, error.reason, f"does not decode ({error})"))
                except OSError as error:
                    what = f"cannot be read ({error.strerror})"
                    findings.problems.append(shard.problem(row, "read_error", what))
            findings.digests.append(digest)
    return findings


def _disagreements(shard: CheckedShard, walk: _Findings, skipped: set[str]) -> Iterator[Problem]:
    """Where the members of the tar and the rows of the index are not the same."""
    keys = set()
    for row in range(len(shard.table)):
        key, label = bytes(shard.table.key[row]), int(shard.table.label[row])
        keys.add(key)
        place = walk.places.get(key + b"." + bytes(shard.table.extension[row]))
        in_index = (int(shard.table.offset[row]), int(shard.table.size[row]))
        if place is None:
            yield shard.problem(row, "not_in_shard", "readers of the tar do not find the image")
        elif place != in_index:
            what = f"the tar has {place[1]} bytes at {place[0]}, the index {in_index[1]} at {in_index[0]}"
            yield shard.problem(row, "row", what)
        written = walk.labels.get(key + b".cls", b"").strip()
        if label != UNLABELLED and written.isdigit() and int(written) != label:
            yield shard.problem(row, "label", f"label {int(written)} in the tar, {label} in the index")
    for name, (offset, _) in walk.places.items():
        folder, slash, base = name.rpartition(b"/")
        key, _, extension = base.partition(b".")  # as webdataset cuts a name
        is_image = f".{text_of(extension).lower()}" in IMAGE_SUFFIXES
        if is_image and folder + slash + key not in keys and text_of(name) not in skipped:
            what = "the tar has this image, the index does not"
            yield Problem(shard.entry.file, text_of(name), "not_in_index", what, offset)
