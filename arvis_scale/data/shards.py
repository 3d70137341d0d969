"""Reading the samples of shards by number: one positioned read each, through the memory-mapped index."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from arvis_scale.data.decode import UnreadableImageError, decode_rgb
from arvis_scale.data.faults import BadSample, Reason
from arvis_scale.data.index import UNLABELLED, SampleTable, ShardEntry, read_index, samples_folder
from arvis_scale.data.open_files import OpenFiles
from arvis_scale.data.remote import RemoteFiles, is_remote
from arvis_scale.data.remote_index import index_folder
from arvis_scale.data.retries import with_retries

MAX_OPEN_SHARDS = 64
NUM_RETRIES = 3
# After this many rows the pages of the index that were read are given back, which an epoch would make the whole index.
ROWS_PER_RELEASE = 5_000

Value = TypeVar("Value")

_logger = logging.getLogger(__name__)


class Split(Protocol):
    """Samples that are read by number: those of one data set (`ShardSplit`) or of several (`mixing.MixedSplit`)."""

    name: str

    def __len__(self) -> int: ...

    def key(self, sample: int) -> str:
        """Return the WebDataset key of a sample."""

    def labels_of(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Return class numbers, -1 for a sample without one; None where there are no classes."""

    def prefetch(self, samples: npt.NDArray[np.int64]) -> None:
        """Ask a server for all of these samples at once; does nothing for local shards."""

    def decode(self, sample: int, decoder: Callable[[bytes], Value]) -> Value:
        """Return what `decoder` makes of the image file; raises `BadSample`."""

    def image(self, sample: int) -> Image.Image:
        """Return the decoded 8-bit RGB image; raises `BadSample`."""


class ShardSplit:
    """The samples of one split, numbered in the order of its shards.

    Safe to use after a fork and to pickle (for DataLoader workers); not for several threads at once.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        entries: list[ShardEntry],
        *,
        is_labelled: bool,
        num_retries: int = NUM_RETRIES,
        max_open_shards: int = MAX_OPEN_SHARDS,
    ) -> None:
        """`is_labelled`: whether the data set has classes. Failed reads are repeated up to `num_retries` times."""
        self.name = name
        self._folder = folder
        self._entries = entries
        self._is_labelled = is_labelled
        self._num_retries = num_retries
        self._max_open_shards = max_open_shards
        self.shard_sizes = np.array([entry.num_samples for entry in entries], dtype=np.int64)
        self._first_samples = np.concatenate([[0], np.cumsum(self.shard_sizes)])  # one more than shards
        self._table = _open_table(folder, name, entries)
        self._rows_read = 0
        self._has_remote_shards = any(is_remote(entry.file) for entry in entries)
        self._files = OpenFiles(os.O_RDONLY, max_open_shards)
        self._remote_files = RemoteFiles(num_retries)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy opens the index again: pickled as it is, a memory map would be copied row by row.
        open_again = partial(
            ShardSplit,
            is_labelled=self._is_labelled,
            num_retries=self._num_retries,
            max_open_shards=self._max_open_shards,
        )
        return open_again, (self._folder, self.name, self._entries)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """Class numbers, one per sample, read from the index at every call; None unless every sample has one."""
        if not self._is_labelled:
            return None
        labels = self._table.label.astype(np.int64)
        return None if (labels == UNLABELLED).any() else labels

    def labels_of(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Return class numbers, -1 for a sample without one; None where the data set has no classes."""
        return self._table.label[samples].astype(np.int64) if self._is_labelled else None

    @property
    def keys(self) -> npt.NDArray[np.bytes_]:
        """The keys of all samples, memory-mapped."""
        return self._table.key

    def key(self, sample: int) -> str:
        """Return the WebDataset key of a sample, unique in its data set."""
        return bytes(self._table.key[sample]).decode(errors="backslashreplace")

    def shard_of(self, sample: int) -> int:
        """Return the number of the shard that holds a sample."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)} in split {self.name!r}")
        return int(np.searchsorted(self._first_samples, sample, side="right")) - 1

    def read(self, sample: int) -> bytes:
        """Return the image file's bytes. Raises `BadSample` when the shard does not give them all."""
        entry = self._entries[self.shard_of(sample)]
        offset, size = int(self._table.offset[sample]), int(self._table.size[sample])
        self._count_row()
        if not 0 <= offset <= offset + size <= entry.num_bytes:
            raise self._bad(sample, "wrong_index", f"has {size} bytes in a shard of {entry.num_bytes}")
        try:
            data = self._read_range(entry.file, offset, size)
        except FileNotFoundError as error:
            raise self._bad(sample, "missing_shard", "cannot be read, its shard is missing") from error
        except OSError as error:
            raise self._bad(sample, "read_error", f"cannot be read ({error.strerror or error})") from error
        if len(data) != size:
            raise self._bad(sample, "cut", f"is cut: {len(data)} of {size} bytes")
        return data

    def prefetch(self, samples: npt.NDArray[np.int64]) -> None:
        """Ask a server for all of these samples at once; does nothing for local shards."""
        if not self._has_remote_shards:
            return
        ranges = []
        for sample in samples.tolist():
            entry = self._entries[self.shard_of(sample)]
            offset, size = int(self._table.offset[sample]), int(self._table.size[sample])
            if is_remote(entry.file) and 0 <= offset <= offset + size <= entry.num_bytes:
                ranges.append((entry.file, offset, size))
        self._remote_files.prefetch(ranges)

    def decode(self, sample: int, decoder: Callable[[bytes], Value]) -> Value:
        """Return what `decoder` makes of the image file's bytes.

        Raises `BadSample` where `read` does, and when `decoder` raises `UnreadableImageError`.
        """
        data = self.read(sample)
        try:
            return decoder(data)
        except UnreadableImageError as error:
            raise self._bad(sample, error.reason, f"does not decode ({error})") from error

    def image(self, sample: int) -> Image.Image:
        """Return the decoded 8-bit RGB image. Raises `BadSample`."""
        return self.decode(sample, decode_rgb)

    def _read_range(self, file: str, offset: int, size: int) -> bytes:
        if is_remote(file):
            return self._remote_files.read_range(file, offset, size)
        path = self._folder / file
        return with_retries(
            lambda: os.pread(self._files.descriptor(path), size, offset),
            self._num_retries,
            before_retry=lambda: self._files.forget(path),
        )

    def _count_row(self) -> None:
        self._rows_read += 1
        if self._rows_read % ROWS_PER_RELEASE == 0:
            self._table.release()

    def _bad(self, sample: int, reason: Reason, message: str) -> BadSample:
        file = self._entries[self.shard_of(sample)].file
        shard = file if is_remote(file) else str(self._folder / file)
        advice = f"run `arvis-scale shards check {self._folder}`"
        return BadSample(shard, self.key(sample), int(self._table.offset[sample]), reason, message, advice)


class ShardedDataset:
    """A shard folder: its name, class names (empty when unlabelled), content hash and splits."""

    def __init__(
        self,
        folder: Path,
        *,
        num_retries: int = NUM_RETRIES,
        allow_damage: bool = False,
        max_open_shards: int = MAX_OPEN_SHARDS,
    ) -> None:
        """As `open_shards`."""
        self.folder = folder
        self._max_open_shards = max_open_shards
        self._num_retries = num_retries
        self._allow_damage = allow_damage
        self._index = read_index(folder)
        self.name = self._index.name
        self.classes = self._index.classes
        self.content_hash = self._index.content_hash

    @property
    def splits(self) -> list[str]:
        """Names of the splits there are, out of `train`, `val`, `test`."""
        return list(self._index.splits)

    def split(self, name: str) -> ShardSplit:
        """Open the sample table of a split; raises `ValueError` when there is none of that name or it is damaged."""
        if name not in self._index.splits:
            raise ValueError(f"{self.folder} has no split {name!r}; it has {', '.join(self.splits)}")
        entries = self._index.splits[name]
        for what in _size_problems(self.folder, entries):
            if not self._allow_damage:
                raise ValueError(f"{what}; run `arvis-scale shards check {self.folder}`")
            _logger.warning("%s: its samples will be skipped and counted", what)
        return ShardSplit(
            self.folder,
            name,
            entries,
            is_labelled=bool(self.classes),
            num_retries=self._num_retries,
            max_open_shards=self._max_open_shards,
        )


def open_shards(
    path: str | Path,
    *,
    num_retries: int = NUM_RETRIES,
    allow_damage: bool = False,
    max_open_shards: int = MAX_OPEN_SHARDS,
) -> ShardedDataset:
    """Open a shard folder, on a disk or by URL; raises `ValueError` in one line when it is not one.

    A read of a disk or server that fails is repeated up to `num_retries` times. A split with a shard that is missing
    or of another size is refused, unless `allow_damage` leaves it to the samples: those lost raise `BadSample`.
    Each process keeps at most `max_open_shards` shards of a split open.
    """
    folder = index_folder(path, num_retries)
    return ShardedDataset(folder, num_retries=num_retries, allow_damage=allow_damage, max_open_shards=max_open_shards)


def _size_problems(folder: Path, entries: list[ShardEntry]) -> Iterator[str]:
    """What the local shards' own sizes tell: a cut shard should stop a run before it starts."""
    for entry in entries:
        path = folder / entry.file
        if is_remote(entry.file):
            continue
        num_bytes = path.stat().st_size if path.is_file() else 0
        if num_bytes != entry.num_bytes:
            yield f"{path} has {num_bytes} of {entry.num_bytes} bytes"


def _open_table(folder: Path, split: str, entries: list[ShardEntry]) -> SampleTable:
    table = SampleTable.open(samples_folder(folder, split))
    num_samples = sum(entry.num_samples for entry in entries)
    if len(table) != num_samples:
        raise ValueError(f"{folder}: split {split!r} has {len(table)} of {num_samples} rows; build the shards again")
    return table
