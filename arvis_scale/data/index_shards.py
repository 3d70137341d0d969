"""An index over WebDataset shards that stay where they are: the samples of each are listed, nothing is rewritten."""

from __future__ import annotations

import hashlib
import heapq
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from arvis_scale.data.annotations import NO_LABEL, class_names
from arvis_scale.data.archives import read_span
from arvis_scale.data.concurrency import map_in_order
from arvis_scale.data.decode import UnreadableImageError, decode_with_extension
from arvis_scale.data.image_facts import COLOR_SAMPLE, ImageFacts, color_moments, summarize
from arvis_scale.data.index import UNLABELLED, SampleTable, ShardEntry, SkippedImage
from arvis_scale.data.layout import SPLITS
from arvis_scale.data.remote import copy_file
from arvis_scale.data.sources import Progress
from arvis_scale.data.staging import Journal, Staging
from arvis_scale.data.webdataset_shards import Shard, ShardSample, scan_shard
from arvis_scale.hashing import sha256_of

JOURNAL_NAME = "scanned.jsonl"


@dataclass(frozen=True)
class ScannedShard:
    """What one shard holds; `label` of the table is a number in `labels`, or -1.

    `looked_at` are facts of a few of its images, decoded; the others are not.
    """

    num_bytes: int
    sha256: str
    table: SampleTable
    labels: list[str]
    skipped: list[SkippedImage]
    looked_at: list[ImageFacts]


@dataclass(frozen=True)
class IndexedShards:
    """What an index over shards says: as `DatasetIndex`, with the table of every split."""

    classes: list[str]
    splits: dict[str, list[ShardEntry]]
    tables: dict[str, SampleTable]
    skipped: list[SkippedImage]
    statistics: dict[str, Any]


def index_shards(
    shards: list[Shard], staging: Staging, seed: int, num_workers: int | None, progress: Progress
) -> IndexedShards:
    """Read every shard once: its hash, the places of its images, its labels. Images are not decoded, but for a few.

    A remote shard is copied into the staging folder while it is read. Raises `ValueError` when a shard is cut or
    cannot be read, and when no sample is left.
    """
    num_looked_at = -(-COLOR_SAMPLE // len(shards))

    def scan(number: int) -> ScannedShard:
        return _scan(shards[number], staging.folder / f"remote-{number}.tar", num_looked_at, seed)

    with closing(Journal(staging.folder / JOURNAL_NAME)) as journal:
        scanned = journal.read(_from_json)
        for shard in map_in_order(scan, range(len(scanned), len(shards)), num_workers):
            scanned.append(shard)
            journal.append([_to_json(shard)])
            progress("indexing shards", len(scanned), len(shards))
    return _assemble(shards, scanned)


def _scan(shard: Shard, copy: Path, num_looked_at: int, seed: int) -> ScannedShard:
    path = copy if shard.is_remote else Path(shard.file)
    try:
        if shard.is_remote:
            copy_file(shard.file, copy)
        samples, skipped = scan_shard(shard, path)
        facts = _look_at(samples, path, num_looked_at, seed)
        table, labels = _table(samples)
        class_names(labels)  # raises for labels that can be no classes, before all other shards are read
        return ScannedShard(path.stat().st_size, sha256_of(path), table, labels, skipped, facts)
    except OSError as error:
        raise ValueError(f"{shard.file} cannot be read ({error}); mend the address or leave the shard out") from error
    finally:
        if shard.is_remote:
            copy.unlink(missing_ok=True)


def _look_at(samples: list[ShardSample], path: Path, num_looked_at: int, seed: int) -> list[ImageFacts]:
    """Decode the images whose keys hash lowest; one that does not decode is `shards check`'s to find."""
    chosen = heapq.nsmallest(
        num_looked_at, samples, key=lambda sample: hashlib.sha256(f"{seed} {sample.key}".encode()).digest()
    )
    facts = []
    for sample in chosen:
        try:
            image, extension = decode_with_extension(read_span(str(path), sample.offset, sample.size))
        except UnreadableImageError:
            continue
        facts.append(ImageFacts(sample.size, extension, image.width, image.height, color_moments(image)))
    return facts


def _table(samples: list[ShardSample]) -> tuple[SampleTable, list[str]]:
    labels = sorted({sample.label for sample in samples if sample.label is not None})
    numbers: dict[str | None, int] = {label: number for number, label in enumerate(labels)} | {None: UNLABELLED}
    table = SampleTable(
        offset=np.array([sample.offset for sample in samples], dtype=np.int64),
        size=np.array([sample.size for sample in samples], dtype=np.int64),
        label=np.array([numbers[sample.label] for sample in samples], dtype=np.int32),
        key=np.array([sample.key.encode() for sample in samples], dtype=np.bytes_),
        extension=np.array([sample.extension.encode() for sample in samples], dtype=np.bytes_),
    )
    return table, labels


def _assemble(shards: list[Shard], scanned: list[ScannedShard]) -> IndexedShards:
    pairs = list(zip(shards, scanned, strict=True))
    labelled = {shard.split for shard, found in pairs if found.labels}
    classes = class_names({label for found in scanned for label in found.labels})
    numbers = {name: number for number, name in enumerate(classes)}
    skipped: list[SkippedImage] = []
    splits: dict[str, list[ShardEntry]] = {}
    tables: dict[str, list[SampleTable]] = {}
    for shard, found in pairs:
        skipped += found.skipped
        table = found.table
        if shard.split in labelled:
            table, dropped = _labelled(table, np.array([numbers[label] for label in found.labels], dtype=np.int32))
            skipped += [SkippedImage(name, f"{NO_LABEL} (in {shard.name})") for name in dropped]
        if len(table):
            entry = ShardEntry(shard.file, len(table), found.num_bytes, found.sha256)
            splits.setdefault(shard.split, []).append(entry)
            tables.setdefault(shard.split, []).append(table)
    looked_at = [facts for found in scanned for facts in found.looked_at]
    return IndexedShards(
        classes,
        {split: splits[split] for split in SPLITS if split in splits},
        {split: SampleTable.concatenate(each) for split, each in tables.items()},
        skipped,
        {"images_looked_at": len(looked_at), **summarize(looked_at)},
    )


def _labelled(table: SampleTable, numbers: npt.NDArray[np.int32]) -> tuple[SampleTable, list[str]]:
    """The rows that have a label, with the class number in its place, and the members' names of the others."""
    kept = table.label != UNLABELLED
    names = zip(table.key[~kept].tolist(), table.extension[~kept].tolist(), strict=True)
    rows = SampleTable(
        table.offset[kept], table.size[kept], numbers[table.label[kept]], table.key[kept], table.extension[kept]
    )
    return rows, [f"{key.decode()}.{extension.decode()}" for key, extension in names]


def _to_json(shard: ScannedShard) -> Any:
    table = shard.table
    numbers = [table.offset.tolist(), table.size.tolist(), table.label.tolist()]
    texts = [[text.decode() for text in column.tolist()] for column in (table.key, table.extension)]
    return {
        "num_bytes": shard.num_bytes,
        "sha256": shard.sha256,
        "table": [*numbers, *texts],
        "labels": shard.labels,
        "skipped": [asdict(image) for image in shard.skipped],
        "looked_at": [asdict(facts) for facts in shard.looked_at],
    }


def _from_json(value: Any) -> ScannedShard:
    offset, size, label, key, extension = value["table"]
    table = SampleTable(
        np.array(offset, dtype=np.int64),
        np.array(size, dtype=np.int64),
        np.array(label, dtype=np.int32),
        np.array([text.encode() for text in key], dtype=np.bytes_),
        np.array([text.encode() for text in extension], dtype=np.bytes_),
    )
    return ScannedShard(
        value["num_bytes"],
        value["sha256"],
        table,
        value["labels"],
        [SkippedImage(**image) for image in value["skipped"]],
        [ImageFacts(**{**facts, "colors": tuple(facts["colors"])}) for facts in value["looked_at"]],
    )
