"""Reading the teacher's tokens of a view back, and the seed that the view was drawn from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arvis_scale.data.faults import BadSample
from arvis_scale.data.keyed_random import keyed_seeds
from arvis_scale.data.mapped_arrays import open_mapped
from arvis_scale.data.open_files import OpenFiles
from arvis_scale.data.retries import with_retries
from arvis_scale.data.token_manifest import TokenManifest, samples_path

MAX_OPEN_FILES = 64
# Sample numbers below, views above: what a view is does not depend on how many there are. Stream positions, which the
# other seeds of a run are counted by, stay far below.
_VIEW_SHIFT = 40
_ADVICE = "the `shards tokenize` command that made it makes it again"


def view_seeds(seed: int, samples: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return one 63-bit seed per view of a sample, for its crop and flip: a function of its three numbers alone."""
    return keyed_seeds(seed, samples | ((views + 1) << _VIEW_SHIFT))


class TeacherTokens:
    """The stored views of one part of a token folder. Views come round: epoch e sees view `e % views`.

    Safe to use after a fork and to pickle (for DataLoader workers); not for several threads at once.
    """

    def __init__(self, folder: Path, manifest: TokenManifest, part: str, num_retries: int) -> None:
        """A read that fails is repeated up to `num_retries` times.

        Raises `ValueError` when the sample numbers are missing or damaged.
        """
        self._folder, self._manifest, self._part = folder, manifest, part
        self._num_retries = num_retries
        self._bad_samples = manifest.bad_samples(part)
        self._samples = _read_samples(samples_path(folder, part), manifest, part)
        self._type = manifest.record_type
        self._files = OpenFiles(os.O_RDONLY, MAX_OPEN_FILES)
        self._layout = list(manifest.files(part))
        self._offsets = [len(manifest.header(part, file.num_images)) for file in self._layout]
        self._views = manifest.parts[part].views

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy maps the sample numbers again.
        return TeacherTokens, (self._folder, self._manifest, self._part, self._num_retries)

    def holds(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which of the samples have tokens."""
        rows = np.minimum(np.searchsorted(self._samples, samples), len(self._samples) - 1)
        held: npt.NDArray[np.bool_] = self._samples[rows] == samples
        return held

    def seed(self, sample: int, epoch: int) -> int:
        """Return the seed of the view that a sample is seen in.

        Raises `BadSample` for an image that could not be read when its tokens were made.
        """
        if sample in self._bad_samples:
            message = "could not be read when its tokens were made"
            advice = "mend it and run `shards tokenize` into another folder"
            raise BadSample(str(self._folder), str(sample), 0, "read_error", message, advice)
        [seed] = view_seeds(self._manifest.seed, np.array([sample]), np.array([epoch % self._views])).tolist()
        return int(seed)

    def read(self, samples: npt.NDArray[np.int64], epochs: npt.NDArray[np.int64]) -> dict[str, Tensor]:
        """Return the fields of `token_records.encode`, B views each, their names after `teacher_`.

        Raises `ValueError` naming the file that cannot be read.
        """
        rows = np.searchsorted(self._samples, samples)
        assert (self._samples[rows] == samples).all(), "a run without tokens for its images is refused"
        fields = {name: _empty(self._type, name, len(rows)) for name in self._type.names or ()}
        # Rows of bytes, which a read fills in place.
        places = [array.reshape(len(rows), -1).view(np.uint8) for array in fields.values()]
        for number, (row, view) in enumerate(zip(rows.tolist(), (epochs % self._views).tolist(), strict=True)):
            self._read_into([memoryview(place[number]) for place in places], row, view)
        return {f"teacher_{name}": torch.from_numpy(array) for name, array in fields.items()}

    def _read_into(self, places: list[memoryview], row: int, view: int) -> None:
        number, image = divmod(row, self._manifest.images_per_file)
        path = self._folder / self._layout[number].name
        offset = self._offsets[number] + (image * self._views + view) * self._type.itemsize
        try:
            num_bytes = with_retries(
                lambda: os.preadv(self._files.descriptor(path), places, offset),
                self._num_retries,
                before_retry=lambda: self._files.forget(path),
            )
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}); {_ADVICE}") from error
        if num_bytes != self._type.itemsize:
            raise ValueError(f"{path} is cut: {num_bytes} of {self._type.itemsize} bytes at {offset}; {_ADVICE}")

    def check_files(self) -> None:
        """Raise `ValueError` naming a file that is missing or has not the size it should."""
        for file in self._layout:
            path = self._folder / file.name
            expected = self._manifest.file_bytes(self._part, file.num_images)
            num_bytes = path.stat().st_size if path.is_file() else 0
            if num_bytes != expected:
                raise ValueError(f"{path} has {num_bytes} of {expected} bytes; {_ADVICE}")


def _empty(record: np.dtype, name: str, num_rows: int) -> npt.NDArray:
    assert record.fields is not None
    field = record.fields[name][0]
    return np.empty((num_rows, *field.shape), dtype=field.base)


def _read_samples(path: Path, manifest: TokenManifest, part: str) -> npt.NDArray[np.int64]:
    try:
        samples = open_mapped(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}); {_ADVICE}") from error
    if samples.dtype != np.int64 or samples.shape != (manifest.parts[part].num_images,):
        raise ValueError(f"{path} holds {samples.dtype} {samples.shape}, not the part's sample numbers; {_ADVICE}")
    return samples
