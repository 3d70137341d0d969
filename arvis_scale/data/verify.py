"""The first pass of a build: read and decode every image once, so that nothing is written of a source that is bad.

What was found is kept in a journal, image by image, and images encoded anew in one file beside it: a build that was
killed goes on behind the last of them.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import zlib
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from arvis_scale.data.concurrency import map_in_order
from arvis_scale.data.decode import UnreadableImageError, decode_with_extension
from arvis_scale.data.image_facts import COLOR_SAMPLE, ImageFacts, color_moments
from arvis_scale.data.index import SkippedImage
from arvis_scale.data.reencode import Reencoding
from arvis_scale.data.sources import ImageSource, Progress, SourceImage
from arvis_scale.data.staging import Journal

JOURNAL_NAME = "verified.jsonl"
REENCODED_NAME = "reencoded.bin"
_IMAGES_PER_WRITE = 64


@dataclass(frozen=True, slots=True)
class VerifiedImage:
    """An image that decodes: its number in the source, its bytes as they go into a shard, and what they show.

    The checksum tells if the file changes under us. `reencoded_at` is where in the file of images encoded anew it
    lies, -1 for one that keeps its own bytes.
    """

    ordinal: int
    crc32: int
    reencoded_at: int
    facts: ImageFacts


# What verifying gives for one image: that it is good, or the reason why it is skipped.
Outcome = VerifiedImage | str


def verify_images(
    source: ImageSource,
    folder: Path,
    *,
    reencoding: Reencoding | None,
    seed: int,
    num_workers: int | None,
    progress: Progress,
) -> tuple[list[VerifiedImage], list[SkippedImage]]:
    """Return the good images and the bad ones, both in the order of the source; `folder` keeps what is done.

    A second image of the same path is bad. Colors are measured on a sample that depends on paths and `seed` alone.
    """
    kept = _Kept(folder)
    sampled = _color_sample(source, seed)
    repeated = _repeated(source)

    def verify(ordinal: int) -> tuple[Outcome, bytes | None]:
        if ordinal in repeated:
            return "a second file of the same path", None
        return _verify(ordinal, source.images[ordinal], reencoding, ordinal in sampled)

    todo = range(len(kept.outcomes), len(source.images))
    for outcome, reencoded in map_in_order(verify, todo, num_workers):
        kept.add(outcome, reencoded)
        progress("verifying", len(kept.outcomes), len(source.images))
    kept.close()
    good = [outcome for outcome in kept.outcomes if isinstance(outcome, VerifiedImage)]
    pairs = zip(source.images, kept.outcomes, strict=True)
    return good, [SkippedImage(image.named, outcome) for image, outcome in pairs if isinstance(outcome, str)]


def _verify(
    ordinal: int, image: SourceImage, reencoding: Reencoding | None, measure_colors: bool
) -> tuple[Outcome, bytes | None]:
    try:
        data = image.read()
        decoded, extension = decode_with_extension(data)
        reencoded = reencoding.apply(data, decoded) if reencoding else None
        if reencoded is not None:
            data, (decoded, extension) = reencoded, decode_with_extension(reencoded)
    except UnreadableImageError as error:
        return str(error), None
    except OSError as error:
        return f"cannot be read ({error.strerror or error})", None
    colors = color_moments(decoded) if measure_colors else None
    facts = ImageFacts(len(data), extension, decoded.width, decoded.height, colors)
    return VerifiedImage(ordinal, zlib.crc32(data), -1, facts), reencoded


def _color_sample(source: ImageSource, seed: int) -> set[int]:
    """Numbers of the images whose colors are measured: those whose paths hash lowest."""

    def rank(ordinal: int) -> bytes:
        return hashlib.sha256(f"{seed} {source.images[ordinal].path}".encode()).digest()

    return set(heapq.nsmallest(COLOR_SAMPLE, range(len(source.images)), key=rank))


def _repeated(source: ImageSource) -> set[int]:
    """Numbers of the images whose path an earlier one has."""
    first: dict[str, int] = {}
    return {number for number, image in enumerate(source.images) if first.setdefault(image.path, number) != number}


class _Kept:
    """The outcomes so far, in memory and on disk, where the images encoded anew stand one behind the other."""

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder / JOURNAL_NAME)
        self.outcomes: list[Outcome] = self._journal.read(_from_json)
        self._num_written = len(self.outcomes)
        good = (outcome for outcome in self.outcomes if isinstance(outcome, VerifiedImage))
        self._end = max(
            (image.reencoded_at + image.facts.num_bytes for image in good if image.reencoded_at >= 0), default=0
        )
        self._reencoded = (folder / REENCODED_NAME).open("ab")
        os.truncate(folder / REENCODED_NAME, self._end)

    def add(self, outcome: Outcome, reencoded: bytes | None) -> None:
        if reencoded is not None:
            assert isinstance(outcome, VerifiedImage)
            outcome = replace(outcome, reencoded_at=self._end)
            self._end += self._reencoded.write(reencoded)
        self.outcomes.append(outcome)
        if len(self.outcomes) - self._num_written >= _IMAGES_PER_WRITE:
            self._write()

    def _write(self) -> None:
        """The images first: what the journal names must be there."""
        self._reencoded.flush()
        self._journal.append(_to_json(outcome) for outcome in self.outcomes[self._num_written :])
        self._num_written = len(self.outcomes)

    def close(self) -> None:
        self._write()
        self._reencoded.close()
        self._journal.close()


def _to_json(outcome: Outcome) -> Any:
    if isinstance(outcome, str):
        return outcome
    return [outcome.ordinal, outcome.crc32, outcome.reencoded_at, *astuple(outcome.facts)]


def _from_json(value: Any) -> Outcome:
    if isinstance(value, str):
        return value
    ordinal, crc32, reencoded_at, num_bytes, extension, width, height, colors = value
    facts = ImageFacts(num_bytes, extension, width, height, None if colors is None else tuple(colors))
    return VerifiedImage(ordinal, crc32, reencoded_at, facts)
