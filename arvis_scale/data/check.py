"""Checking shards: every hash, size, index row, tar member and image; all damage is listed, not only the first."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from arvis_scale.data.concurrency import map_in_order
from arvis_scale.data.decode import UnreadableImageError, image_extension
from arvis_scale.data.index import UNLABELLED, DatasetIndex, SampleTable, ShardEntry, read_index, samples_folder
from arvis_scale.data.sources import StrictTarInfo
from arvis_scale.hashing import sha256_of

# Called with the samples checked and their total.
CheckProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Problem:
    """One thing that is broken: in which file, at which sample (None: the file as a whole), and what."""

    file: str
    key: str | None
    what: str


@dataclass(frozen=True)
class CheckReport:
    """What was looked at and what is broken; `num_samples` is what the index promises."""

    num_shards: int
    num_samples: int
    problems: list[Problem]

    def summary(self) -> str:
        """The report in words: one line, then one for each problem."""
        verdict = f"{len(self.problems):,} problems:" if self.problems else "all whole"
        lines = [f"{self.num_samples:,} samples in {self.num_shards} shards: {verdict}"]
        lines += [
            f"  {problem.file}{f', {problem.key}' if problem.key else ''}: {problem.what}" for problem in self.problems
        ]
        return "\n".join(lines)


def check_shards(folder: str | Path, *, progress: CheckProgress | None = None) -> CheckReport:
    """Verify a shard folder completely; never stops at the first damage.

    Raises `ValueError` only when `folder` has no readable `index.json`, without which nothing can be checked.
    """
    folder = Path(folder)
    index = read_index(folder)
    entries = [entry for shards in index.splits.values() for entry in shards]
    problems: list[Problem] = []
    keys: Counter[str] = Counter()
    done = 0
    for split, shards in index.splits.items():
        table, found = _check_table(folder, index, split)
        problems += found
        if table is not None:
            keys.update(_text(key) for key in table.key)
        first = 0
        for entry in shards:
            problems += _check_shard(folder, entry)
            if table is not None and (folder / entry.file).is_file():
                problems += _check_members(folder, entry, table[first : first + entry.num_samples])
            first += entry.num_samples
            done += entry.num_samples
            if progress:
                progress(done, index.num_samples)
    problems += [Problem("index.json", key, f"the key is used {uses} times") for key, uses in keys.items() if uses > 1]
    listed = {entry.file for entry in entries}
    strangers = sorted(path.name for path in folder.glob("*.tar") if path.name not in listed)
    problems += [Problem(name, None, "the shard is not in index.json") for name in strangers]
    return CheckReport(len(entries), index.num_samples, problems)


def _check_shard(folder: Path, entry: ShardEntry) -> Iterator[Problem]:
    """Size and hash of a shard."""
    tar = folder / entry.file
    if not tar.is_file():
        yield Problem(entry.file, None, "the shard is missing")
    elif tar.stat().st_size != entry.num_bytes:
        yield Problem(entry.file, None, f"has {tar.stat().st_size} bytes instead of {entry.num_bytes}")
    elif sha256_of(tar) != entry.sha256:
        yield Problem(entry.file, None, "SHA-256 differs from index.json")


def _check_table(folder: Path, index: DatasetIndex, split: str) -> tuple[SampleTable | None, list[Problem]]:
    """The sample table of a split, where it can be read and has the rows that it should, and what is wrong with it."""
    path = samples_folder(folder, split)
    if not path.is_dir():
        return None, [Problem(path.name, None, "the sample table is missing")]
    try:
        table = SampleTable.open(path)
    except ValueError as error:
        return None, [Problem(path.name, None, str(error))]
    problems = []
    if table.sha256() != index.table_sha256[split]:
        problems.append(Problem(path.name, None, "SHA-256 differs from index.json"))
    num_rows = sum(entry.num_samples for entry in index.splits[split])
    if len(table) != num_rows:
        problems.append(Problem(path.name, None, f"has {len(table)} rows instead of {num_rows}"))
        return None, problems
    for row, label in enumerate(table.label):
        if label != UNLABELLED and not 0 <= label < len(index.classes):
            what = f"label {label} is none of {len(index.classes)} classes"
            problems.append(Problem(path.name, _text(table.key[row]), what))
    return table, problems


def _check_members(folder: Path, entry: ShardEntry, table: SampleTable) -> Iterator[Problem]:
    """The tar's own members against the table, then every sample's bytes by positioned read."""
    path = folder / entry.file
    members: dict[str, tuple[int, int]] = {}  # name -> offset and size of the content
    try:
        with tarfile.open(path, "r:", tarinfo=StrictTarInfo) as archive:
            for member in archive:
                members[member.name] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        yield Problem(entry.file, None, f"the tar breaks off after {len(members)} members ({error})")
    expected = {f"{_text(table.key[row])}.{_text(table.extension[row])}" for row in range(len(table))}
    expected |= {f"{_text(table.key[row])}.cls" for row in range(len(table)) if table.label[row] != UNLABELLED}
    for name in sorted(members.keys() - expected):
        yield Problem(entry.file, name, "the tar has this member, the index does not")

    def check(row: int) -> Problem | None:
        what = _sample_problem(path, entry.num_bytes, table, row, members)
        return Problem(entry.file, _text(table.key[row]), what) if what else None

    yield from (problem for problem in map_in_order(check, range(len(table))) if problem)


def _sample_problem(
    path: Path, num_bytes: int, table: SampleTable, row: int, members: dict[str, tuple[int, int]]
) -> str | None:
    """What is wrong with one sample, in words, or None."""
    key, extension, label = _text(table.key[row]), _text(table.extension[row]), int(table.label[row])
    offset, size = int(table.offset[row]), int(table.size[row])
    place = members.get(f"{key}.{extension}")
    label_place = members.get(f"{key}.cls")
    if not 0 <= offset <= offset + size <= num_bytes:
        return f"the index places it at byte {offset} with {size} bytes, in a shard of {num_bytes}"
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        image = file.read(size)
        label_text = b""
        if label_place:
            file.seek(label_place[0])
            label_text = file.read(label_place[1])
    if len(image) != size:
        return f"is cut: {len(image)} of {size} bytes"
    try:
        content = image_extension(image)
    except UnreadableImageError as error:
        return f"does not decode ({error})"
    if place is None:
        return "the tar has no such member"
    if place != (offset, size):
        return f"the tar has it at byte {place[0]} with {place[1]} bytes, the index at {offset} with {size}"
    if content != extension:
        return f"is a {content} image under the extension {extension}"
    if label != UNLABELLED and label_text != str(label).encode():
        return f"label {label_text!r} in the tar, {label} in the index"
    return None


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")
