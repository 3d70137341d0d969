"""Existing WebDataset shards: which there are, and the samples in each, by webdataset's conventions.

A member `DIR/0001.seg.png` belongs to the sample `DIR/0001` (its name up to the first dot behind the last slash) under
the extension `seg.png`; members of one sample stand together. What we read is the image (`jpg`, `jpeg`, `png`, `webp`),
the label (`cls`, else the field `label` of `json`) and the caption (`txt`). Other members are never read, pickled ones
among them.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from arvis_scale.data.annotations import normal_label
from arvis_scale.data.archives import read_span, tar_members
from arvis_scale.data.index import SkippedImage
from arvis_scale.data.remote import is_remote

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
TEXT_EXTENSIONS = ("cls", "json", "txt")
MAX_TEXT_BYTES = 1 << 20
MAX_KEY_BYTES = 255  # every row of the index is as wide as its longest key
_SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar file: its absolute path or URL, how reports name it, and the split that its name tells (else `train`)."""

    file: str
    name: str
    split: str

    @property
    def is_remote(self) -> bool:
        return is_remote(self.file)


@dataclass(slots=True)
class ShardSample:
    """One sample of a shard: where its image's bytes lie, and what stands beside it."""

    key: str
    extension: str
    offset: int
    size: int
    label: str | None = None
    caption: str | None = None


def is_shard_pattern(source: str) -> bool:
    """Return whether `source` can only be a brace pattern or an address, not something on this disk."""
    return not Path(source).exists() and ("{" in source or is_remote(source) or source.startswith("pipe:"))


def list_shards(source: str) -> list[Shard]:
    """List the shards of a folder (sorted, searched to its bottom), of a brace pattern, or the one that is named.

    Raises `ValueError` when there are none, when one of them is no `.tar` or is not there, and for `pipe:`.
    """
    if source.startswith("pipe:"):
        raise ValueError(f"{source} would run a command; shards are files or http(s)://, s3:// addresses")
    folder = Path(source)
    if folder.is_dir():
        shards = [_shard(str(path), str(path.relative_to(folder))) for path in sorted(folder.glob("**/*.tar"))]
    else:
        # Imported here: only patterns need it.
        from braceexpand import braceexpand

        try:
            files = list(braceexpand(source))
        except ValueError as error:
            raise ValueError(f"{source} is no brace pattern ({error}); write it like train-{{000..099}}.tar") from error
        shards = [_shard(file, file.rsplit("/", 1)[-1]) for file in files]
    if not shards:
        raise ValueError(f"{source} holds no .tar shard")
    for shard in shards:
        if not shard.file.split("?")[0].endswith(".tar"):
            raise ValueError(f"{shard.file} is no plain .tar shard; fetch or pack it again as one")
        if not shard.is_remote and not Path(shard.file).is_file():
            raise ValueError(f"{shard.file} does not exist; mend the pattern or fetch the shard")
    return shards


def _shard(file: str, name: str) -> Shard:
    words = re.findall("[a-z]+", name.lower())
    split = next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), "train")
    return Shard(file if is_remote(file) else str(Path(file).absolute()), name, split)


def scan_shard(shard: Shard, path: Path) -> tuple[list[ShardSample], list[SkippedImage]]:
    """List the samples of a shard that lies at `path`, in its order, and those left out (named by a member).

    Only headers, labels and captions are read. Raises `ValueError` when the tar breaks off before its end.
    """
    samples: list[ShardSample] = []
    skipped: list[SkippedImage] = []
    try:
        for key, members in groupby(_members(path), key=lambda member: member.key):
            group = _Group(key, list(members))
            fault = group.read(path)
            if fault is None:
                samples.append(group.sample())
            else:
                skipped.append(SkippedImage(_printable(group.named()), f"{fault} (in {shard.name})"))
    except ValueError as error:  # a remote shard's copy is not what the user knows
        raise ValueError(str(error).replace(str(path), shard.file)) from error
    return samples, skipped


@dataclass(frozen=True, slots=True)
class _Member:
    key: str
    extension: str
    info: tarfile.TarInfo


def _members(path: Path) -> Iterator[_Member]:
    for info in tar_members(path):
        folder, slash, base = info.name.rpartition("/")
        key, dot, extension = base.partition(".")
        if info.isdir() or not key or not dot or (key.startswith("__") and key.endswith("__")):
            continue
        yield _Member(folder + slash + key, extension, info)


@dataclass
class _Group:
    """The members of one sample."""

    key: str
    members: list[_Member]
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def image(self) -> _Member | None:
        return next((member for member in self.members if member.extension.lower() in IMAGE_EXTENSIONS), None)

    def named(self) -> str:
        return (self.image or self.members[0]).info.name

    def read(self, path: Path) -> str | None:
        """Read the label and caption; return what makes the sample unusable, or None."""
        if self.image is None:
            return "no image member"
        if not self.key.isprintable() or len(os.fsencode(self.key)) > MAX_KEY_BYTES:
            return f"a name that is not UTF-8, not printable or longer than {MAX_KEY_BYTES} bytes"
        if self.image.info.size == 0:
            return "the image is empty"
        if not self.image.info.isreg() or self.image.info.issparse():
            return "a link, not a file"
        if len({member.extension for member in self.members}) < len(self.members):
            return "two members of one name"
        for member in self.members:
            extension = member.extension.lower()
            if extension not in TEXT_EXTENSIONS:
                continue
            if not member.info.isreg() or member.info.size > MAX_TEXT_BYTES:
                return f"its .{extension} is no file or larger than {MAX_TEXT_BYTES} bytes"
            try:
                self.texts[extension] = read_span(str(path), member.info.offset_data, member.info.size).decode()
            except UnicodeDecodeError:
                return f"its .{extension} is not UTF-8"
        return self._bad_label()

    def _bad_label(self) -> str | None:
        """Settle the label: `cls`, else what `json` says."""
        if "cls" not in self.texts and "json" in self.texts:
            try:
                label: Any = json.loads(self.texts["json"])
            except (ValueError, RecursionError):
                return "its .json is not JSON"
            label = label.get("label") if isinstance(label, dict) else None
            if isinstance(label, bool) or not isinstance(label, str | int | None):
                return "the label in its .json is neither a name nor a whole number"
            if label is not None:
                self.texts["cls"] = str(label)
        text = self.texts.get("cls", "").strip()
        return f"the label {text} is no class number" if re.fullmatch(r"-\d+", text) else None

    def sample(self) -> ShardSample:
        assert self.image is not None
        info = self.image.info
        label = normal_label(self.texts.get("cls", "")) or None
        caption = self.texts.get("txt") or None
        return ShardSample(self.key, self.image.extension, info.offset_data, info.size, label, caption)


def _printable(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")
