"""The files beside the shards: `index.json` for the whole data set, one `.index.npz` of sample rows per shard.

DST/index.json               name, classes, splits -> shards (sizes, hashes), skipped images, content hash
DST/train-000000.tar         a WebDataset shard
DST/train-000000.index.npz   one row per sample, in the order of the shard
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from arvis_scale.atomic import read_json, write_json

SCHEMA_VERSION = 1
INDEX_NAME = "index.json"
UNLABELLED = -1


@dataclass(frozen=True)
class ShardEntry:
    """One shard as `index.json` records it; hashes are SHA-256 in hexadecimal, sizes in bytes."""

    file: str
    num_samples: int
    num_bytes: int
    sha256: str
    table_sha256: str


@dataclass(frozen=True)
class SkippedImage:
    """An image file of the source that is not in the shards, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class DatasetIndex:
    """The contents of `index.json`. `classes` is empty when nothing is labelled."""

    name: str
    classes: list[str]
    splits: dict[str, list[ShardEntry]]
    skipped: list[SkippedImage]

    @property
    def num_samples(self) -> int:
        return sum(entry.num_samples for entries in self.splits.values() for entry in entries)

    @property
    def content_hash(self) -> str:
        """SHA-256 over classes and shards in order: equal for equal images, labels and keys in equal order."""
        splits = {
            name: [[entry.num_samples, entry.sha256] for entry in entries] for name, entries in self.splits.items()
        }
        content = json.dumps({"classes": self.classes, "splits": splits}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def write(self, folder: Path) -> None:
        value = {"schema_version": SCHEMA_VERSION, "content_hash": self.content_hash, **asdict(self)}
        write_json(folder / INDEX_NAME, value)


@dataclass(frozen=True)
class SampleTable:
    """The samples of one shard, one row each, in the order of the shard.

    `offset` and `size` give the image's bytes in the tar; `label` is -1 where there is none; `key` and `extension`
    are ASCII byte strings.
    """

    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    key: npt.NDArray[np.bytes_]
    extension: npt.NDArray[np.bytes_]

    def __len__(self) -> int:
        return len(self.offset)

    def write(self, path: Path) -> None:
        np.savez(path, **vars(self))

    @classmethod
    def read(cls, path: Path) -> SampleTable:
        """Raises `ValueError` naming the file when it is missing, damaged or of unequal columns."""
        names = ("offset", "size", "label", "key", "extension")
        try:
            with np.load(path, allow_pickle=False) as arrays:
                table = cls(**{name: arrays[name] for name in names})
        except (OSError, KeyError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} cannot be read as a shard index ({error}); build the shards again") from error
        if any(getattr(table, name).shape != table.offset.shape for name in names):
            raise ValueError(f"{path} has columns of unequal length; build the shards again")
        return table


def table_file(shard_file: str) -> str:
    """Name of the sample table beside a shard."""
    return Path(shard_file).stem + ".index.npz"


def read_index(folder: Path) -> DatasetIndex:
    """The index of a shard folder.

    Raises `ValueError` in one line when `folder` is not a shard folder, and when its index is damaged: fields missing
    or not adding up to the content hash recorded with them.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        raise ValueError(f"{folder} is not a shard folder (no {INDEX_NAME}); run `arvis-scale shards build SRC DST`")
    value = read_json(path, newest_schema=SCHEMA_VERSION)
    try:
        splits = {name: [ShardEntry(**entry) for entry in entries] for name, entries in value["splits"].items()}
        skipped = [SkippedImage(**image) for image in value["skipped"]]
        index = DatasetIndex(value["name"], list(value["classes"]), splits, skipped)
        content_hash = str(value["content_hash"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); build the shards again") from error
    if content_hash != index.content_hash:
        raise ValueError(f"{path} is damaged (its entries do not give its content hash); build the shards again")
    for entries in splits.values():
        for entry in entries:
            if Path(entry.file).name != entry.file:
                raise ValueError(f"{path} names the shard {entry.file!r}, which is not a plain file name")
    return index
