"""Reading shards through their index: any sample by one positioned read, nothing untarred."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from arvis_scale.data.decode import UnreadableImageError, decode_rgb
from arvis_scale.data.index import UNLABELLED, SampleTable, ShardEntry, read_index, samples_folder
from arvis_scale.data.open_files import OpenFiles

MAX_OPEN_SHARDS = 64


class ShardSplit:
    """The samples of one split, numbered in the order of its shards.

    Safe to use after a fork and to pickle (for DataLoader workers); not for several threads at once.
    """

    def __init__(self, folder: Path, name: str, entries: list[ShardEntry]) -> None:
        self.name = name
        self._folder = folder
        self._shard_files = [entry.file for entry in entries]
        self._first_samples = np.cumsum([0] + [entry.num_samples for entry in entries])  # one more than shards
        self._table = _open_table(folder, name, entries)
        labels = np.asarray(self._table.label, dtype=np.int64)
        self._labels = None if (labels == UNLABELLED).any() else labels
        self._files = OpenFiles(os.O_RDONLY, MAX_OPEN_SHARDS)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """Class numbers, one per sample; None when the split is unlabelled."""
        return self._labels

    def key(self, sample: int) -> str:
        """The WebDataset key of a sample, unique in its data set."""
        return bytes(self._table.key[sample]).decode()

    def read(self, sample: int) -> bytes:
        """The image file's bytes. Raises `ValueError` naming shard and key when the shard does not give them all."""
        path = self._shard_path(sample)
        size = int(self._table.size[sample])
        try:
            data = os.pread(self._files.descriptor(path), size, int(self._table.offset[sample]))
        except OSError as error:
            raise ValueError(f"{self._where(sample)} cannot be read ({error.strerror}); {self._advice()}") from error
        if len(data) != size:
            raise ValueError(f"{self._where(sample)} is cut: {len(data)} of {size} bytes; {self._advice()}")
        return data

    def image(self, sample: int) -> Image.Image:
        """The decoded 8-bit RGB image. Raises `ValueError` naming shard and key."""
        try:
            return decode_rgb(self.read(sample))
        except UnreadableImageError as error:
            raise ValueError(f"{self._where(sample)} does not decode ({error}); {self._advice()}") from error

    def _shard_path(self, sample: int) -> Path:
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)} in split {self.name!r}")
        shard = int(np.searchsorted(self._first_samples, sample, side="right")) - 1
        return self._folder / self._shard_files[shard]

    def _where(self, sample: int) -> str:
        return f"{self._shard_path(sample)}: sample {self.key(sample)}"

    def _advice(self) -> str:
        return f"run `arvis-scale shards check {self._folder}`"


class ShardedDataset:
    """A shard folder: its name, class names (empty when unlabelled), content hash and splits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = read_index(folder)
        self.name = self._index.name
        self.classes = self._index.classes
        self.content_hash = self._index.content_hash

    @property
    def splits(self) -> list[str]:
        """Names of the splits there are, out of `train`, `val`, `test`."""
        return list(self._index.splits)

    def split(self, name: str) -> ShardSplit:
        """Load the sample tables of a split; raises `ValueError` when there is none of that name or it is damaged."""
        if name not in self._index.splits:
            raise ValueError(f"{self.folder} has no split {name!r}; it has {', '.join(self.splits)}")
        return ShardSplit(self.folder, name, self._index.splits[name])


def open_shards(path: str | Path) -> ShardedDataset:
    """Open a folder that `build_shards` wrote; raises `ValueError` in one line when it is not one."""
    return ShardedDataset(Path(path))


def _open_table(folder: Path, split: str, entries: list[ShardEntry]) -> SampleTable:
    """The table of a split, after a look at the shards' own sizes: a cut shard should stop a run before it starts."""
    for entry in entries:
        path = folder / entry.file
        num_bytes = path.stat().st_size if path.is_file() else 0
        if num_bytes != entry.num_bytes:
            raise ValueError(
                f"{path} has {num_bytes} of {entry.num_bytes} bytes; run `arvis-scale shards check {folder}`"
            )
    table = SampleTable.open(samples_folder(folder, split))
    num_samples = sum(entry.num_samples for entry in entries)
    if len(table) != num_samples:
        raise ValueError(f"{folder}: split {split!r} has {len(table)} of {num_samples} rows; build the shards again")
    return table
