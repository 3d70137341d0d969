"""Building shards: read a source once to verify every image, plan where each goes, read it again to put it there.

Two passes let archives be read in their own order, in bounded memory and without unpacking, although the samples
stand in the shards in a shuffled order; and nothing is written before the source is known to be good.
"""

from __future__ import annotations

import os
import shutil
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from arvis_scale.data.concurrency import map_in_order
from arvis_scale.data.decode import UnreadableImageError, image_extension
from arvis_scale.data.index import (
    INDEX_NAME,
    DatasetIndex,
    SampleTable,
    ShardEntry,
    SkippedImage,
    read_index,
    samples_folder,
)
from arvis_scale.data.open_files import OpenFiles
from arvis_scale.data.plan import PlannedShard, VerifiedImage, plan_shards
from arvis_scale.data.sources import ImageSource, SourceImage, open_source
from arvis_scale.data.tar_layout import BLOCK, encode_sample
from arvis_scale.hashing import sha256_of

SAMPLES_PER_SHARD = 10_000
MAX_OPEN_SHARDS = 256
NUM_NAMED = 20  # skipped images that a summary names

# Called with the stage (`verifying`, `writing`), the images done, and their total where it is known.
BuildProgress = Callable[[str, int, "int | None"], None]


@dataclass(frozen=True)
class BuildReport:
    """What a build wrote; `num_samples` is per split, `classes` is empty when nothing is labelled."""

    destination: Path
    name: str
    classes: list[str]
    num_samples: dict[str, int]
    num_shards: int
    num_bytes: int
    skipped: list[SkippedImage]
    content_hash: str

    def summary(self) -> str:
        """The report in words: one line, then one for each skipped image (the first few; index.json names all)."""
        splits = ", ".join(f"{split} {num:,}" for split, num in self.num_samples.items())
        labels = f"{len(self.classes)} classes" if self.classes else "unlabelled (images do not all lie in CLASS/image)"
        lines = [
            f"{self.destination}: {self.name}, {sum(self.num_samples.values()):,} images ({splits}), {labels}, "
            f"{self.num_shards} shards, {self.num_bytes / 1e6:,.1f} MB, content hash {self.content_hash[:12]}"
        ]
        if self.skipped:
            lines.append(f"skipped {len(self.skipped):,} image files:")
            lines += [f"  {image.path}: {image.reason}" for image in self.skipped[:NUM_NAMED]]
        if len(self.skipped) > NUM_NAMED:
            lines.append(f"  and {len(self.skipped) - NUM_NAMED:,} more, all named in {self.destination / INDEX_NAME}")
        return "\n".join(lines)


def build_shards(
    source: str | Path,
    destination: Path,
    *,
    samples_per_shard: int = SAMPLES_PER_SHARD,
    seed: int = 0,
    progress: BuildProgress | None = None,
) -> BuildReport:
    """Write the images of `source` (see `sources.open_source`, `layout`) as WebDataset shards into `destination`.

    Image bytes are kept as they are. Samples of a split are shuffled by `seed`, so that shards mix classes.
    `destination` appears whole, by a rename, or not at all. Unreadable images are skipped and reported.

    Raises `ValueError` before anything is written when `destination` holds something, when the source is missing,
    damaged as a whole or empty, and when none of its images can be read.
    """
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard is {samples_per_shard}; a shard holds at least 1 sample")
    _refuse_existing(destination)
    images = open_source(source)
    verified, skipped = _verify(images, progress)
    if not verified:
        first = f"; the first, {skipped[0].path}: {skipped[0].reason}" if skipped else ""
        raise ValueError(f"{source} holds no readable image ({len(skipped)} image files{first})")
    plan = plan_shards(verified, samples_per_shard, seed)

    target = destination.resolve()
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.building")
    temporary.mkdir(parents=True)
    try:
        _write_samples(images, [shard for shards in plan.splits.values() for shard in shards], temporary, progress)
        entries, table_sha256 = _finish(plan.splits, temporary)
        index = DatasetIndex(images.name, plan.classes, entries, skipped, table_sha256)
        index.write(temporary)
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _report(destination, index)


def _refuse_existing(destination: Path) -> None:
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    if (destination / INDEX_NAME).is_file():
        index = read_index(destination)
        raise ValueError(
            f"{destination} already holds the finished shards of {index.name!r} ({index.num_samples:,} images, content "
            f"hash {index.content_hash[:12]}); use them, remove them, or build somewhere else"
        )
    raise ValueError(f"{destination} exists and holds something else; nothing is overwritten, build somewhere else")


def _verify(source: ImageSource, progress: BuildProgress | None) -> tuple[list[VerifiedImage], list[SkippedImage]]:
    """Read and decode everything once; both lists come sorted by path, whatever the order of the source."""
    verified: dict[str, VerifiedImage] = {}
    skipped: list[SkippedImage] = []
    for done, result in enumerate(map_in_order(_verify_image, enumerate(source.images())), start=1):
        if isinstance(result, SkippedImage):
            skipped.append(result)
        elif result.path in verified:
            skipped.append(SkippedImage(result.path, "a second file of the same path"))
        else:
            verified[result.path] = result
        if progress:
            progress("verifying", done, source.num_images)
    skipped.sort(key=lambda image: (image.path, image.reason))
    return [verified[path] for path in sorted(verified)], skipped


def _verify_image(numbered: tuple[int, SourceImage]) -> VerifiedImage | SkippedImage:
    ordinal, image = numbered
    try:
        data = image.read()
        return VerifiedImage(ordinal, image.path, len(data), zlib.crc32(data), image_extension(data))
    except UnreadableImageError as error:
        return SkippedImage(image.path, str(error))
    except OSError as error:
        return SkippedImage(image.path, f"cannot be read ({error.strerror or error})")


def _write_samples(
    source: ImageSource, shards: list[PlannedShard], folder: Path, progress: BuildProgress | None
) -> None:
    """Read the source again and put every sample at its planned place."""
    placement = {image.ordinal: (shard, row) for shard in shards for row, image in enumerate(shard.images)}

    def encode(numbered: tuple[int, SourceImage]) -> tuple[Path, int, bytes] | None:
        ordinal, image = numbered
        if ordinal not in placement:
            return None
        shard, row = placement[ordinal]
        return folder / shard.file, int(shard.table.offset[row]) - BLOCK, _encode(image, shard, row)

    for shard in shards:
        with (folder / shard.file).open("wb") as file:
            file.truncate(shard.num_bytes)
    files = OpenFiles(os.O_WRONLY, MAX_OPEN_SHARDS)
    num_written = 0
    for encoded in map_in_order(encode, enumerate(source.images())):
        if encoded is None:
            continue
        path, offset, sample = encoded
        if os.pwrite(files.descriptor(path), sample, offset) != len(sample):
            raise OSError(f"{path} did not take all {len(sample)} bytes of a sample; is the disk full?")
        num_written += 1
        if progress:
            progress("writing", num_written, len(placement))
    files.close()
    if num_written != len(placement):
        lost = len(placement) - num_written
        raise ValueError(f"the source lost {lost} images while the shards were built; build again")


def _encode(image: SourceImage, shard: PlannedShard, row: int) -> bytes:
    """The tar members of a sample; raises `ValueError` when its bytes are not those that were verified."""
    planned, table = shard.images[row], shard.table
    try:
        data = image.read()
    except OSError as error:
        raise ValueError(f"{planned.path} cannot be read any more ({error}); build again") from error
    if (image.path, len(data), zlib.crc32(data)) != (planned.path, planned.size, planned.crc32):
        raise ValueError(f"{planned.path} changed while the shards were built; build again")
    return encode_sample(table.key[row].decode(), planned.extension, data, int(table.label[row]))


def _finish(
    splits: dict[str, list[PlannedShard]], folder: Path
) -> tuple[dict[str, list[ShardEntry]], dict[str, str]]:
    """Write the tables beside the shards, flush everything to disk, and hash it."""

    def finish(shard: PlannedShard) -> ShardEntry:
        tar = folder / shard.file
        with tar.open("rb") as file:
            os.fsync(file.fileno())
        return ShardEntry(shard.file, len(shard.table), shard.num_bytes, sha256_of(tar))

    table_sha256 = {}
    for split, shards in splits.items():
        table = SampleTable.concatenate([shard.table for shard in shards])
        table.write(samples_folder(folder, split))
        table_sha256[split] = table.sha256()
    return {split: list(map_in_order(finish, shards)) for split, shards in splits.items()}, table_sha256


def _report(destination: Path, index: DatasetIndex) -> BuildReport:
    shards = [entry for entries in index.splits.values() for entry in entries]
    return BuildReport(
        destination=destination,
        name=index.name,
        classes=index.classes,
        num_samples={split: sum(entry.num_samples for entry in entries) for split, entries in index.splits.items()},
        num_shards=len(shards),
        num_bytes=sum(entry.num_bytes for entry in shards),
        skipped=index.skipped,
        content_hash=index.content_hash,
    )
