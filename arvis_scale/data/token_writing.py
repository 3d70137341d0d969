"""Writing a token folder file by file, so that a command that was killed goes on where it ended."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from arvis_scale.atomic import whole_file
from arvis_scale.data.token_manifest import (
    MANIFEST_NAME,
    FinishedFile,
    TokenFile,
    TokenManifest,
    read_manifest,
    samples_path,
)
from arvis_scale.data.token_records import DirectionError


class EncodedViews(NamedTuple):
    """Some views that follow each other in a file."""

    fields: Mapping[str, Tensor]  # of `token_records.encode`, on the CPU
    error: DirectionError
    bad_samples: set[int]


class TokenWriter:
    """A token folder in the making; `manifest` says which files are done."""

    def __init__(self, folder: Path, manifest: TokenManifest) -> None:
        self._folder = folder
        self.manifest = manifest

    def missing(self, part: str) -> list[TokenFile]:
        """Return the files of a part that are still to be written, in order."""
        return [file for file in self.manifest.files(part) if file.name not in self.manifest.done]

    def write(self, part: str, file: TokenFile, batches: Iterable[EncodedViews]) -> None:
        """Write one file, whole or not at all, from the views of its images in order, and note that it is done."""
        error, bad_samples = DirectionError(), set[int]()
        with whole_file(self._folder / file.name) as temporary, open(temporary, "wb") as stream:
            stream.write(self.manifest.header(part, file.num_images))
            for batch in batches:
                stream.write(_records(batch.fields, self.manifest.record_type))
                error += batch.error
                bad_samples |= batch.bad_samples
            num_bytes, expected = stream.tell(), self.manifest.file_bytes(part, file.num_images)
            assert num_bytes == expected, f"{num_bytes} of {expected} bytes of {file.name} were given"
        self.manifest = self.manifest.with_done(file.name, FinishedFile(error, tuple(sorted(bad_samples))))
        self.manifest.write(self._folder)


@contextmanager
def open_writer(
    folder: Path, manifest: TokenManifest, samples: Mapping[str, npt.NDArray[np.int64]]
) -> Iterator[TokenWriter]:
    """Begin a token folder, or go on with one that was begun for the same tokens; one command at a time.

    `samples`: the sample numbers of each part, rising. Raises `ValueError` when the folder holds something else,
    naming the first key that differs, and when another command is writing it.
    """
    if folder.exists() and not (folder / MANIFEST_NAME).is_file() and (not folder.is_dir() or _content(folder)):
        raise ValueError(f"{folder} exists and holds something else; nothing is overwritten, choose another --output")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{folder} is being written by another command; wait for it") from error
        if (folder / MANIFEST_NAME).is_file():
            manifest = _resumed(folder, manifest)
        for leftover in folder.glob(".*.tmp"):  # of a killed command
            leftover.unlink()
        for part, numbers in samples.items():
            with whole_file(samples_path(folder, part)) as temporary, open(temporary, "wb") as stream:
                np.save(stream, numbers, allow_pickle=False)
        manifest.write(folder)
        yield TokenWriter(folder, manifest)


def _content(folder: Path) -> list[Path]:
    """What a begun folder without a manifest does not hold."""
    ours = [".samples", ".npy"]
    return [path for path in folder.iterdir() if not path.name.startswith(".") and path.suffixes != ours]


def _resumed(folder: Path, manifest: TokenManifest) -> TokenManifest:
    """Return `manifest` with the files of an earlier command that are there in full."""
    begun = read_manifest(folder)
    before, now = begun.identity(), manifest.identity()
    for key in now:
        if before.get(key) != now[key]:
            raise ValueError(
                f"{folder} holds other tokens: {key} was {before.get(key)!r}, now {now[key]!r}; choose another --output"
            )
    for part in manifest.parts:
        for file in manifest.files(part):
            path = folder / file.name
            whole = path.is_file() and path.stat().st_size == manifest.file_bytes(part, file.num_images)
            if whole and file.name in begun.done:
                manifest = manifest.with_done(file.name, begun.done[file.name])
    return manifest


def _records(fields: Mapping[str, Tensor], record_type: np.dtype) -> memoryview[Any]:
    """Return the bytes of the views' records."""
    names = record_type.names or ()
    records = np.empty(len(fields[names[0]]), dtype=record_type)
    for name in names:
        records[name] = fields[name].numpy()
    return records.view(np.uint8).data
