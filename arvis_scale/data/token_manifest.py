"""The files of a token folder, and tokens.json, which says what they hold.

TOKENS/tokens.json                  what the tokens were made with, their shape, the files that are done, their error
TOKENS/train.samples.npy            sample numbers of the training images (int64, rising): row r of the files is image r
TOKENS/train-000000.npy             records (`token_records`), images x views, the views of an image one after the other
TOKENS/validation.samples.npy ...   the same for the validation images, one centred view of each
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from arvis_scale.atomic import read_json, write_json
from arvis_scale.data.token_records import DirectionError, record_type

SCHEMA_VERSION = 1
MANIFEST_NAME = "tokens.json"
TRAIN, VALIDATION = "train", "validation"


class TokenFile(NamedTuple):
    """One file of records: those of `num_images` images from row `first_image` of its part."""

    name: str
    first_image: int
    num_images: int


@dataclass(frozen=True)
class TokenPart:
    """The images of a run that are trained on, or that it is validated on."""

    num_images: int
    # Views stored of each image.
    views: int
    # Over the sample numbers.
    samples_sha256: str

    @classmethod
    def of(cls, samples: npt.NDArray[np.int64], views: int) -> TokenPart:
        """Return the part of these sample numbers, which must rise."""
        return cls(len(samples), views, hashlib.sha256(samples.astype("<i8").tobytes()).hexdigest())


@dataclass(frozen=True)
class FinishedFile:
    """What is known of a file of records once it is written."""

    error: DirectionError
    # Sample numbers of its images that could not be read: their records hold nothing.
    bad_samples: tuple[int, ...] = ()


@dataclass(frozen=True)
class TokenManifest:
    """The contents of tokens.json."""

    # By the key of a run's configuration: what decides what the teacher saw and which teacher it was.
    made_with: dict[str, Any]
    # Seed of the views' crops and flips.
    seed: int
    # fp16 | int8 | fp32, and the shape of a view: class token and patch tokens, channels.
    precision: str
    num_tokens: int
    width: int
    images_per_file: int
    parts: dict[str, TokenPart]
    # By name.
    done: dict[str, FinishedFile] = field(default_factory=dict)

    @property
    def record_type(self) -> np.dtype:
        return record_type(self.precision, self.num_tokens, self.width)

    @property
    def num_bytes(self) -> int:
        """Bytes of all records together."""
        return sum(part.num_images * part.views for part in self.parts.values()) * self.record_type.itemsize

    @property
    def error(self) -> DirectionError:
        """How far the tokens that are done are from the teacher's own."""
        return sum((file.error for file in self.done.values()), DirectionError())

    @property
    def is_complete(self) -> bool:
        return len(self.done) == sum(1 for part in self.parts for _ in self.files(part))

    def files(self, part: str) -> Iterator[TokenFile]:
        """Yield the files of a part, in order."""
        num_images = self.parts[part].num_images
        for number, first in enumerate(range(0, num_images, self.images_per_file)):
            yield TokenFile(f"{part}-{number:06d}.npy", first, min(self.images_per_file, num_images - first))

    def header(self, part: str, num_images: int) -> bytes:
        """Return what a file of `num_images` images begins with, in numpy's format."""
        header = io.BytesIO()
        shape = (num_images, self.parts[part].views)
        description = {"descr": np.lib.format.dtype_to_descr(self.record_type), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, description)
        return header.getvalue()

    def file_bytes(self, part: str, num_images: int) -> int:
        """Return the size of a file of `num_images` images."""
        records = num_images * self.parts[part].views * self.record_type.itemsize
        return len(self.header(part, num_images)) + records

    def with_done(self, name: str, finished: FinishedFile) -> TokenManifest:
        """Return the manifest with one more file done."""
        return replace(self, done={**self.done, name: finished})

    def bad_samples(self, part: str) -> set[int]:
        """Return the sample numbers of a part's images that could not be read."""
        done = (self.done[file.name] for file in self.files(part) if file.name in self.done)
        return {sample for file in done for sample in file.bad_samples}

    def identity(self) -> dict[str, Any]:
        """Return what two manifests of the same tokens agree in, by name."""
        values = asdict(replace(self, done={}))
        del values["done"]
        return {**values.pop("made_with"), **values}

    def write(self, folder: Path) -> None:
        """Write tokens.json."""
        summary = {"complete": self.is_complete, "num_bytes": self.num_bytes, "error": asdict(self.error)}
        write_json(folder / MANIFEST_NAME, {"schema_version": SCHEMA_VERSION, **summary, **asdict(self)})


def samples_path(folder: Path, part: str) -> Path:
    """Where the sample numbers of a part lie."""
    return folder / f"{part}.samples.npy"


def read_manifest(folder: Path) -> TokenManifest:
    """Read tokens.json; raises `ValueError` in one line when there is none or it is damaged."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no teacher tokens (no {MANIFEST_NAME}); `arvis-scale shards tokenize` makes them"
        )
    values = read_json(path, newest_schema=SCHEMA_VERSION)
    try:
        return _manifest_of(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); tokenize again") from error


def read_complete_manifest(folder: Path) -> TokenManifest:
    """Read tokens.json of a folder that is to be used; `ValueError` also when files are still missing."""
    manifest = read_manifest(folder)
    if not manifest.is_complete:
        num_files = sum(1 for part in manifest.parts for _ in manifest.files(part))
        raise ValueError(
            f"{folder} has {len(manifest.done)} of {num_files} files; the command that began it goes on where it ended"
        )
    return manifest


def _manifest_of(values: Mapping[str, Any]) -> TokenManifest:
    return TokenManifest(
        made_with=dict(values["made_with"]),
        seed=int(values["seed"]),
        precision=str(values["precision"]),
        num_tokens=int(values["num_tokens"]),
        width=int(values["width"]),
        images_per_file=int(values["images_per_file"]),
        parts={name: TokenPart(**part) for name, part in values["parts"].items()},
        done={
            name: FinishedFile(DirectionError(**file["error"]), tuple(file["bad_samples"]))
            for name, file in values["done"].items()
        },
    )
