"""The files beside the shards: `index.json` for the whole data set, one folder of memory-mapped columns per split.

DST/index.json          name, classes, splits -> shards (sizes, hashes), skipped images, hashes, statistics
DST/train-000000.tar    a WebDataset shard
DST/train.samples/      offset.npy size.npy label.npy key.npy extension.npy: one row per sample, in the order of the
                        split's shards
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from arvis_scale.atomic import read_json, write_json
from arvis_scale.data.mapped_arrays import open_mapped
from arvis_scale.data.remote import is_remote

SCHEMA_VERSION = 2
INDEX_NAME = "index.json"
UNLABELLED = -1


@dataclass(frozen=True)
class ShardEntry:
    """One shard as `index.json` records it; the hash is SHA-256 in hexadecimal, sizes are in bytes.

    `file` is a plain name in the folder of the index or, where the shards stay elsewhere, an absolute path or a URL.
    """

    file: str
    num_samples: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class SkippedImage:
    """An image file of the source that is not in the shards, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class DatasetIndex:
    """The contents of `index.json`. `classes` is empty when nothing is labelled.

    `table_sha256` gives, by split, `SampleTable.sha256`; `statistics` is for people, but for its `options`, by which a
    build that is started again knows itself.
    """

    name: str
    classes: list[str]
    splits: dict[str, list[ShardEntry]]
    skipped: list[SkippedImage]
    table_sha256: dict[str, str]
    statistics: dict[str, Any] = field(default_factory=dict)

    @property
    def num_samples(self) -> int:
        return sum(entry.num_samples for entries in self.splits.values() for entry in entries)

    @property
    def content_hash(self) -> str:
        """SHA-256 over classes, shards and rows in order: equal for equal images, labels and keys in equal order."""
        splits = {
            name: [self.table_sha256[name], [[entry.num_samples, entry.sha256] for entry in entries]]
            for name, entries in self.splits.items()
        }
        content = json.dumps({"classes": self.classes, "splits": splits}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def write(self, folder: Path) -> None:
        value = {"schema_version": SCHEMA_VERSION, "content_hash": self.content_hash, **asdict(self)}
        write_json(folder / INDEX_NAME, value)


@dataclass(frozen=True)
class SampleTable:
    """Samples, one row each, in the order of their shards.

    `offset` and `size` give the image's bytes in its shard (int64); `label` (int32) is -1 where there is none; `key`
    and `extension` are fixed-width ASCII byte strings.
    """

    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    label: npt.NDArray[np.int32]
    key: npt.NDArray[np.bytes_]
    extension: npt.NDArray[np.bytes_]

    def __post_init__(self) -> None:
        assert (self.offset.dtype, self.size.dtype, self.label.dtype) == (np.int64, np.int64, np.int32)
        assert self.key.dtype.kind == self.extension.dtype.kind == "S"
        assert all(column.shape == (len(self),) for _, column in self._columns())

    def __len__(self) -> int:
        return len(self.offset)

    def __getitem__(self, rows: slice) -> SampleTable:
        """Some rows, without copying them."""
        return SampleTable(*(column[rows] for _, column in self._columns()))

    @classmethod
    def concatenate(cls, tables: Sequence[SampleTable]) -> SampleTable:
        """The rows of all tables, one after the other; there must be at least one table."""
        return cls(*(np.concatenate([getattr(table, column.name) for table in tables]) for column in fields(cls)))

    def sha256(self) -> str:
        """SHA-256 over names, types and contents of the columns, in hexadecimal."""
        digest = hashlib.sha256()
        for name, column in self._columns():
            digest.update(f"{name} {column.dtype.str} {len(column)}\n".encode())
            digest.update(np.ascontiguousarray(column).view(np.uint8).data)
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Write the columns as `folder`, whole or not at all; an earlier one is replaced."""
        temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
        temporary.mkdir(parents=True)
        try:
            for name, column in self._columns():
                with (temporary / f"{name}.npy").open("wb") as file:
                    np.save(file, column, allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
            shutil.rmtree(folder, ignore_errors=True)
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @classmethod
    def open(cls, folder: Path) -> SampleTable:
        """Memory-map the columns, read-only; costs the same for ten rows as for a billion.

        Raises `ValueError` naming the file when one is missing or damaged, or when columns are of unequal length.
        """
        columns = [_open_column(folder / f"{column.name}.npy") for column in fields(cls)]
        if len({column.shape for column in columns}) != 1:
            raise ValueError(f"{folder} has columns of unequal length; build the shards again")
        try:
            return cls(*columns)
        except AssertionError as error:
            raise ValueError(f"{folder} has columns of the wrong types; build the shards again") from error

    def release(self) -> None:
        """Give back the memory of the pages that were read; reading them again costs a page fault each."""
        for _, column in self._columns():
            mapping: object = column
            while isinstance(mapping, np.ndarray):
                mapping = mapping.base
            if isinstance(mapping, mmap.mmap):
                mapping.madvise(mmap.MADV_DONTNEED)

    def _columns(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        return ((column.name, getattr(self, column.name)) for column in fields(self))


def _open_column(path: Path) -> npt.NDArray[Any]:
    try:
        return open_mapped(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a column of samples ({error}); build the shards again") from error


def samples_folder(folder: Path, split: str) -> Path:
    """Where the sample table of a split lies."""
    return folder / f"{split}.samples"


def read_index(folder: Path) -> DatasetIndex:
    """The index of a shard folder.

    Raises `ValueError` in one line when `folder` is not a shard folder, when its index is of an older schema, and when
    it is damaged: fields missing or not adding up to the content hash recorded with them.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        raise ValueError(f"{folder} is not a shard folder (no {INDEX_NAME}); run `arvis-scale shards build SRC DST`")
    value = read_json(path, newest_schema=SCHEMA_VERSION)
    if value["schema_version"] < SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema_version {value['schema_version']}, this arvis_scale reads {SCHEMA_VERSION}; build the "
            "shards again"
        )
    try:
        splits = {name: [ShardEntry(**entry) for entry in entries] for name, entries in value["splits"].items()}
        skipped = [SkippedImage(**image) for image in value["skipped"]]
        index = DatasetIndex(
            value["name"], list(value["classes"]), splits, skipped, dict(value["table_sha256"]), value["statistics"]
        )
        content_hash, adds_up = str(value["content_hash"]), index.content_hash
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); build the shards again") from error
    if content_hash != adds_up:
        raise ValueError(f"{path} is damaged (its entries do not give its content hash); build the shards again")
    for entries in splits.values():
        for entry in entries:
            _check_file(path, entry.file)
    return index


def _check_file(path: Path, file: str) -> None:
    """A relative path could lead out of the folder; an absolute one or a URL says openly where it leads."""
    if Path(file).name != file and not Path(file).is_absolute() and not is_remote(file):
        raise ValueError(f"{path} names the shard {file!r}, which is no plain file name, absolute path or URL")
