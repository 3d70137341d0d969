"""Checking shards: every hash, size, index row, tar member and image; all damage is listed, not only the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from arvis_scale.data.check_report import CheckReport, Copy, Problem, SplitCount
from arvis_scale.data.check_shard import DIGEST_BYTES, CheckedShard, check_contents, text_of
from arvis_scale.data.concurrency import map_in_order
from arvis_scale.data.index import UNLABELLED, DatasetIndex, SampleTable, ShardEntry, read_index, samples_folder
from arvis_scale.data.remote import is_remote, size_of
from arvis_scale.data.remote_index import index_folder

# Called with the samples checked and their total.
CheckProgress = Callable[[int, int], None]

_Tables = dict[str, SampleTable | None]


def check_shards(address: str | Path, *, quick: bool = False, progress: CheckProgress | None = None) -> CheckReport:
    """Verify a shard folder completely, or with `quick` its index and the sizes only; never stop at the first damage.

    `address`: the folder, or its URL. Raises `ValueError` only when it has no readable `index.json`, or on a server no
    undamaged sample table, without which nothing can be checked.
    """
    folder = index_folder(address)
    index = read_index(folder)
    problems: dict[str, list[Problem]] = {split: [] for split in index.splits}
    tables: _Tables = {}
    unreadable: set[str] = set()
    for split, entries in index.splits.items():
        tables[split], found = _open_table(folder, index, split)
        sizes = [problem for problem in map_in_order(partial(_size_problem, folder), entries) if problem]
        unreadable |= {problem.file for problem in sizes if problem.kind != "size"}
        problems[split] += [*found, *sizes]
    elsewhere = [*_repeated_keys(tables), *_unlisted_shards(folder, index)]
    duplicates: list[list[Copy]] = []
    if not quick:
        shards = list(_shards_to_read(folder, index, tables, unreadable))
        digests = np.zeros(sum(len(shard.table) for shard in shards), dtype=f"V{DIGEST_BYTES}")
        done = 0
        for shard, found, found_digests in check_contents(shards, {image.path for image in index.skipped}, progress):
            problems[shard.split] += found
            digests[done : done + len(found_digests)] = found_digests
            done += len(found_digests)
        duplicates = _duplicates(shards, digests)
        elsewhere += _leaks(duplicates)
    splits = [_count(split, entries, problems[split]) for split, entries in index.splits.items()]
    everything = [*(problem for found in problems.values() for problem in found), *elsewhere]
    return CheckReport(str(address), index.content_hash, quick, splits, everything, duplicates)


def _count(split: str, entries: list[ShardEntry], problems: list[Problem]) -> SplitCount:
    num_samples, num_bytes = sum(entry.num_samples for entry in entries), sum(entry.num_bytes for entry in entries)
    return SplitCount(split, len(entries), num_samples, num_bytes, len(problems))


def _size_problem(folder: Path, entry: ShardEntry) -> Problem | None:
    try:
        num_bytes = size_of(entry.file) if is_remote(entry.file) else (folder / entry.file).stat().st_size
    except FileNotFoundError:
        return Problem(entry.file, None, "missing_shard", "the shard is missing")
    except OSError as error:
        return Problem(entry.file, None, "read_error", f"cannot be read ({error.strerror or error})")
    if num_bytes in (entry.num_bytes, None):
        return None
    return Problem(entry.file, None, "size", f"has {num_bytes} bytes instead of {entry.num_bytes}")


def _open_table(folder: Path, index: DatasetIndex, split: str) -> tuple[SampleTable | None, list[Problem]]:
    """The sample table of a split, where it can be used, and what is wrong with it."""
    path = samples_folder(folder, split)
    if not path.is_dir():
        return None, [Problem(path.name, None, "table", "the sample table is missing")]
    try:
        table = SampleTable.open(path)
    except ValueError as error:
        return None, [Problem(path.name, None, "table", str(error))]
    problems = []
    if table.sha256() != index.table_sha256[split]:
        problems.append(Problem(path.name, None, "hash", "SHA-256 differs from index.json"))
    num_rows = sum(entry.num_samples for entry in index.splits[split])
    if len(table) != num_rows:
        problems.append(Problem(path.name, None, "table", f"has {len(table)} rows instead of {num_rows}"))
        return None, problems
    label = np.asarray(table.label)
    for row in np.flatnonzero((label != UNLABELLED) & ((label < 0) | (label >= len(index.classes)))).tolist():
        what = f"label {label[row]} is none of {len(index.classes)} classes"
        problems.append(Problem(path.name, text_of(table.key[row]), "label", what))
    if (label != UNLABELLED).any():
        for row in np.flatnonzero(label == UNLABELLED).tolist():
            problems.append(Problem(path.name, text_of(table.key[row]), "missing_label", "has no label, others do"))
    return table, [*problems, *_misplaced_rows(index.splits[split], table)]


def _misplaced_rows(entries: list[ShardEntry], table: SampleTable) -> Iterator[Problem]:
    first = 0
    for entry in entries:
        rows = table[first : first + entry.num_samples]
        first += entry.num_samples
        offset, size = np.asarray(rows.offset), np.asarray(rows.size)
        # offset + size could overflow
        outside = (offset < 0) | (size < 0) | (offset > entry.num_bytes) | (size > entry.num_bytes - offset)
        for row in np.flatnonzero(outside).tolist():
            what = f"the index gives it {size[row]} bytes there, in a shard of {entry.num_bytes}"
            yield Problem(entry.file, text_of(rows.key[row]), "row", what, int(offset[row]))


def _repeated_keys(tables: _Tables) -> Iterator[Problem]:
    columns = [np.asarray(table.key) for table in tables.values() if table is not None]
    if columns:
        keys, uses = np.unique(np.concatenate(columns), return_counts=True)
        for position in np.flatnonzero(uses > 1).tolist():
            what = f"the key is used {uses[position]} times"
            yield Problem("index.json", text_of(keys[position]), "repeated_key", what)


def _unlisted_shards(folder: Path, index: DatasetIndex) -> Iterator[Problem]:
    listed = {entry.file for entries in index.splits.values() for entry in entries}
    for path in sorted(folder.glob("*.tar")):
        if path.name not in listed and str(path.resolve()) not in listed:
            yield Problem(path.name, None, "not_in_index", "the shard is not in index.json")


def _shards_to_read(folder: Path, index: DatasetIndex, tables: _Tables, unreadable: set[str]) -> Iterator[CheckedShard]:
    for split, entries in index.splits.items():
        table, first = tables[split], 0
        for entry in entries:
            if table is not None and entry.file not in unreadable:
                yield CheckedShard(split, folder, entry, table[first : first + entry.num_samples])
            first += entry.num_samples


def _duplicates(shards: list[CheckedShard], digests: np.ndarray) -> list[list[Copy]]:
    """Groups of samples of equal digests, in the order of their first samples; zeros stand for unread images."""
    order = np.argsort(digests, kind="stable")
    is_equal = digests[order[1:]] == digests[order[:-1]]
    first_samples = np.cumsum([0] + [len(shard.table) for shard in shards])
    groups: list[list[int]] = []
    for position in np.flatnonzero(is_equal).tolist():
        if digests[order[position]] == np.zeros((), digests.dtype):
            continue
        if not groups or groups[-1][-1] != order[position]:
            groups.append([int(order[position])])
        groups[-1].append(int(order[position + 1]))

    def copy_at(sample: int) -> Copy:
        shard = int(np.searchsorted(first_samples, sample, side="right")) - 1
        row = sample - int(first_samples[shard])
        return Copy(shards[shard].split, shards[shard].entry.file, text_of(shards[shard].table.key[row]))

    return [[copy_at(sample) for sample in group] for group in sorted(groups)]


def _leaks(duplicates: list[list[Copy]]) -> Iterator[Problem]:
    for group in duplicates:
        for copy in group:
            others = sorted({other.split for other in group} - {copy.split})
            if others:
                what = f"LEAK: this {copy.split} image is also in {' and '.join(others)}, so a score on it is no test"
                yield Problem(copy.file, copy.key, "split_leak", what)
