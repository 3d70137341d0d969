"""Building shards: read a source once to verify every image, plan where each goes, read it again to put it there.

Everything happens in a folder beside the destination (`staging`), which a killed build leaves for the next one to go
on with. The destination appears whole, by a rename, or not at all.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arvis_scale.config.hints import one_of
from arvis_scale.data.image_facts import summarize
from arvis_scale.data.index import INDEX_NAME, DatasetIndex, SampleTable, SkippedImage, read_index, samples_folder
from arvis_scale.data.index_shards import index_shards
from arvis_scale.data.plan import ShardSize, places_of, plan_shards
from arvis_scale.data.reencode import Reencoding
from arvis_scale.data.sources import ImageSource, Progress, file_size, open_source, source_name
from arvis_scale.data.staging import Staging, remove_leftover
from arvis_scale.data.verify import verify_images
from arvis_scale.data.webdataset_shards import Shard, list_shards
from arvis_scale.data.write_shards import write_shards

SAMPLES_PER_SHARD = 10_000
QUALITY = 95
NUM_NAMED = 20  # skipped images that a summary names
# What of a reason is about one file alone: reasons are counted without it.
_DETAILS = re.compile(r"\s*[(:'\"<].*")


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
    was_finished: bool

    def summary(self) -> str:
        """The report in words: one line, then one for each skipped image (the first few; index.json names all)."""
        splits = ", ".join(f"{split} {num:,}" for split, num in self.num_samples.items())
        labels = f"{len(self.classes)} classes" if self.classes else "unlabelled"
        was = "is finished already: " if self.was_finished else ""
        lines = [
            f"{self.destination}: {was}{self.name}, {sum(self.num_samples.values()):,} images ({splits}), {labels}, "
            f"{self.num_shards} shards, {self.num_bytes / 1e6:,.1f} MB, content hash {self.content_hash[:12]}"
        ]
        if self.skipped:
            kinds = Counter(_DETAILS.sub("", image.reason) for image in self.skipped)
            counts = "; ".join(f"{number:,} x {kind}" for kind, number in kinds.most_common())
            lines.append(f"skipped {len(self.skipped):,} image files ({counts}):")
            lines += [f"  {image.path}: {image.reason}" for image in self.skipped[:NUM_NAMED]]
        if len(self.skipped) > NUM_NAMED:
            lines.append(f"  and {len(self.skipped) - NUM_NAMED:,} more, all named in {self.destination / INDEX_NAME}")
        return "\n".join(lines)


@dataclass(frozen=True)
class BuildOptions:
    """What besides the source determines the shards; `columns` are those of a manifest."""

    size: ShardSize
    reencoding: Reencoding | None
    columns: Mapping[str, str] | None
    seed: int

    def as_json(self) -> dict[str, Any]:
        return {
            "samples_per_shard": self.size.num_samples,
            "bytes_per_shard": self.size.num_bytes,
            "reencoding": asdict(self.reencoding) if self.reencoding else None,
            "columns": dict(self.columns) if self.columns else None,
            "seed": self.seed,
        }


def build_shards(
    source: str | Path,
    destination: Path,
    *,
    samples_per_shard: int | None = None,
    bytes_per_shard: int | None = None,
    shorter_side: int | None = None,
    quality: int = QUALITY,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    on_bad_sample: str = "skip",
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Write the images of `source` (see `sources.open_source`, `layout`) as WebDataset shards into `destination`.

    Shards hold up to `samples_per_shard` samples (10,000) or about `bytes_per_shard` bytes, all of a split about the
    same. Image bytes are kept as they are, but where `shorter_side` (pixels) makes larger ones JPEGs of `quality`.
    Samples of a split are shuffled by `seed`, so that shards mix classes. Unreadable images are skipped and reported,
    or refused under `on_bad_sample="raise"`. `num_workers` threads, by default one per core up to 16, make no
    difference to the result.

    A build that was interrupted goes on; of a finished one the report is returned. Raises `ValueError` when
    `destination` holds anything else or the half of another build, when the source is missing, damaged as a whole or
    empty, when none of its images can be read, and when it changes while it is read.
    """
    one_of("on_bad_sample", on_bad_sample, ("raise", "skip"))
    options = _options(samples_per_shard, bytes_per_shard, shorter_side, quality, columns, seed)
    source, report = str(source), progress or _silent
    if finished := _finished(source, destination, options.as_json()):
        _meet(finished.skipped, on_bad_sample, source)
        return finished
    with Staging(destination, _recipe(source, options.as_json())) as staging:
        try:
            images = open_source(source, scratch=staging.folder, columns=columns, progress=report)
            _refuse_empty(source, len(images.images), images.skipped)
            # What cannot be placed should not be found after hours of decoding.
            places_of(list({image.path: image for image in images.images}.values()))
        except ValueError:
            staging.abandon()
            raise
        staging.claim(images.listing_hash())
        try:
            index, tables = _write(source, images, options, staging, on_bad_sample, num_workers, report)
        except ValueError:  # what is done is of no use any more
            staging.discard()
            raise
        return _publish(index, tables, staging, destination)


def build_index(
    source: str | Path,
    destination: Path,
    *,
    seed: int = 0,
    on_bad_sample: str = "skip",
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Write an index over the WebDataset shards of `source` into `destination`; the shards stay where they are.

    `source` is a folder of `.tar` files or a brace pattern of paths or addresses (`https://`, `s3://`). Images are not
    decoded (`shards check` does that), but for a sample that `seed` draws for the statistics. Samples without an
    image and, in a split that has labels, without one, are met by `on_bad_sample`. Raises `ValueError` as
    `build_shards` does, and when a shard is cut.
    """
    one_of("on_bad_sample", on_bad_sample, ("raise", "skip"))
    source, report = str(source), progress or _silent
    options = {"index_only": True, "seed": seed}
    if finished := _finished(source, destination, options):
        _meet(finished.skipped, on_bad_sample, source)
        return finished
    shards = list_shards(source)
    with Staging(destination, _recipe(source, options)) as staging:
        staging.claim(_listing_of(shards))
        try:
            found = index_shards(shards, staging, seed, num_workers, report)
            _refuse_empty(source, sum(len(table) for table in found.tables.values()), found.skipped)
            _meet(_sorted(found.skipped), on_bad_sample, source)
        except ValueError:
            staging.discard()
            raise
        hashes = {split: table.sha256() for split, table in found.tables.items()}
        statistics = {**found.statistics, "options": options}
        name = source_name(source)
        index = DatasetIndex(name, found.classes, found.splits, _sorted(found.skipped), hashes, statistics)
        return _publish(index, found.tables, staging, destination)


def _options(
    samples_per_shard: int | None,
    bytes_per_shard: int | None,
    shorter_side: int | None,
    quality: int,
    columns: Mapping[str, str] | None,
    seed: int,
) -> BuildOptions:
    if samples_per_shard is not None and bytes_per_shard is not None:
        raise ValueError("shards are sized by the number of samples or by bytes; give one of the two")
    if samples_per_shard is None and bytes_per_shard is None:
        samples_per_shard = SAMPLES_PER_SHARD
    reencoding = Reencoding(shorter_side, quality) if shorter_side is not None else None
    return BuildOptions(ShardSize(samples_per_shard, bytes_per_shard), reencoding, columns, seed)


def _silent(stage: str, done: int, total: int | None) -> None:
    pass


def _recipe(source: str, options: dict[str, Any]) -> dict[str, Any]:
    """What a half-done build must have in common with one that goes on with it."""
    return {"source": str(Path(source).resolve()) if Path(source).exists() else source, **options}


def _listing_of(shards: list[Shard]) -> str:
    lines = [f"{shard.file!r} {-1 if shard.is_remote else file_size(Path(shard.file))}" for shard in shards]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _finished(source: str, destination: Path, options: dict[str, Any]) -> BuildReport | None:
    """The report of a build that is finished, or None where there is nothing yet; all else is refused."""
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return None
    if not (destination / INDEX_NAME).is_file():
        raise ValueError(f"{destination} exists and holds something else; nothing is overwritten, build somewhere else")
    index = read_index(destination)
    if index.name == source_name(source) and index.statistics.get("options") == options:
        remove_leftover(destination)
        return _report(destination, index, was_finished=True)
    raise ValueError(
        f"{destination} already holds the finished shards of {index.name!r} ({index.num_samples:,} images, content "
        f"hash {index.content_hash[:12]}) from another source or other options; use them, remove them, or build "
        "somewhere else"
    )


def _write(
    source: str,
    images: ImageSource,
    options: BuildOptions,
    staging: Staging,
    on_bad_sample: str,
    num_workers: int | None,
    report: Progress,
) -> tuple[DatasetIndex, dict[str, SampleTable]]:
    """Verify, plan and write; return the index and the table of each split."""
    verified, unreadable = verify_images(
        images,
        staging.folder,
        reencoding=options.reencoding,
        seed=options.seed,
        num_workers=num_workers,
        progress=report,
    )
    skipped = _sorted([*images.skipped, *unreadable])
    _refuse_empty(source, len(verified), skipped)
    _meet(skipped, on_bad_sample, source)
    plan = plan_shards(images.images, verified, options.size, options.seed)
    splits = write_shards(images, plan, staging, num_workers, report)
    tables = {
        split: SampleTable.concatenate([shard.table for shard in shards]) for split, shards in plan.splits.items()
    }
    statistics = {
        **summarize([image.facts for image in verified]),
        "reencoded_images": sum(image.reencoded_at >= 0 for image in verified),
        "options": options.as_json(),
    }
    hashes = {split: table.sha256() for split, table in tables.items()}
    return DatasetIndex(images.name, plan.classes, splits, skipped, hashes, statistics), tables


def _refuse_empty(source: str, num_images: int, skipped: list[SkippedImage]) -> None:
    if not num_images:
        first = f"; the first, {skipped[0].path}: {skipped[0].reason}" if skipped else ""
        raise ValueError(f"{source} holds no readable image ({len(skipped)} image files{first})")


def _meet(skipped: list[SkippedImage], on_bad_sample: str, source: str) -> None:
    if skipped and on_bad_sample == "raise":
        first = skipped[0]
        raise ValueError(
            f"{source}: {len(skipped)} image files cannot be used, the first is {first.path}: {first.reason}; mend or "
            "remove them, or skip them (--on-bad-sample skip)"
        )


def _sorted(skipped: list[SkippedImage]) -> list[SkippedImage]:
    return sorted(skipped, key=lambda image: (image.path, image.reason))


def _publish(index: DatasetIndex, tables: dict[str, SampleTable], staging: Staging, destination: Path) -> BuildReport:
    for split, table in tables.items():
        table.write(samples_folder(staging.shards, split))
    index.write(staging.shards)
    staging.finish()
    return _report(destination, index, was_finished=False)


def _report(destination: Path, index: DatasetIndex, *, was_finished: bool) -> BuildReport:
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
        was_finished=was_finished,
    )
