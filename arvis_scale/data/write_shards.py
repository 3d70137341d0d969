"""The second pass of a build: read every image again and write the shards, one after the other, each from its start.

A shard is written under another name, flushed to disk and renamed; a journal keeps its hash. A build that was killed
goes on with the first shard that is not in it.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from arvis_scale.data.archives import read_span
from arvis_scale.data.concurrency import map_in_order
from arvis_scale.data.index import ShardEntry
from arvis_scale.data.plan import Plan, PlannedShard, caption_bytes
from arvis_scale.data.sources import ImageSource, Progress
from arvis_scale.data.staging import Journal, Staging
from arvis_scale.data.tar_layout import encode_sample
from arvis_scale.data.verify import REENCODED_NAME

JOURNAL_NAME = "written.jsonl"


def write_shards(
    source: ImageSource, plan: Plan, staging: Staging, num_workers: int | None, progress: Progress
) -> dict[str, list[ShardEntry]]:
    """Write what is missing of the planned shards; return the entries of all, by split.

    Raises `ValueError` when an image is no longer what was verified.
    """
    journal = Journal(staging.folder / JOURNAL_NAME)
    journaled = journal.read(lambda value: ShardEntry(**value))
    entries = {entry.file: entry for entry in journaled if (staging.shards / entry.file).exists()}
    total, done = sum(len(shard.images) for shard in plan.shards), 0
    for shard in plan.shards:
        if shard.file not in entries:
            samples = _samples(source, shard, staging.folder / REENCODED_NAME, num_workers)
            counted = _counted(samples, done, total, progress)
            entries[shard.file] = _write(shard, counted, staging.shards)
            journal.append([asdict(entries[shard.file])])
        done += len(shard.images)
        progress("writing", done, total)
    journal.close()
    return {split: [entries[shard.file] for shard in shards] for split, shards in plan.splits.items()}


def _samples(source: ImageSource, shard: PlannedShard, reencoded: Path, num_workers: int | None) -> Iterator[bytes]:
    """The tar members of every sample of a shard; images are read ahead, several at a time."""
    table = shard.table

    def encode(row: int) -> bytes:
        planned = shard.images[row]
        image = source.images[planned.ordinal]
        try:
            if planned.reencoded_at >= 0:
                data = read_span(str(reencoded), planned.reencoded_at, planned.facts.num_bytes)
            else:
                data = image.read()
        except OSError as error:
            raise ValueError(f"{image.path} cannot be read any more ({error}); build again") from error
        if (len(data), zlib.crc32(data)) != (planned.facts.num_bytes, planned.crc32):
            raise ValueError(f"{image.path} changed while the shards were built; build again")
        key, extension = bytes(table.key[row]).decode(), planned.facts.extension
        return encode_sample(key, extension, data, int(table.label[row]), caption_bytes(image))

    return map_in_order(encode, range(len(table)), num_workers)


def _counted(samples: Iterator[bytes], done: int, total: int, progress: Progress) -> Iterator[bytes]:
    for number, sample in enumerate(samples, start=1):
        yield sample
        progress("writing", done + number, total)


def _write(shard: PlannedShard, samples: Iterator[bytes], folder: Path) -> ShardEntry:
    part, digest, num_bytes = folder / f".{shard.file}.part", hashlib.sha256(), 0
    with part.open("wb") as file:
        for sample in samples:
            file.write(sample)
            digest.update(sample)
            num_bytes += len(sample)
        end = bytes(shard.num_bytes - num_bytes)
        file.write(end)
        digest.update(end)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / shard.file)
    return ShardEntry(shard.file, len(shard.table), shard.num_bytes, digest.hexdigest())
