"""What is in a shard folder, counted: images, classes, bytes, formats and sizes in pixels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from arvis_scale.data.faults import BadSample
from arvis_scale.data.index import UNLABELLED, SampleTable, read_index, samples_folder
from arvis_scale.data.shards import ShardedDataset, ShardSplit

NUM_MEASURED = 1000  # images whose size in pixels is looked at: the index does not hold it
NUM_CLASSES_NAMED = 10


@dataclass(frozen=True)
class SplitStatistics:
    """Counts of one split. `image_bytes` and `sides` are percentiles 5, 50 and 95."""

    name: str
    num_shards: int
    num_bytes: int
    num_samples: int
    num_unlabelled: int
    class_counts: npt.NDArray[np.int64]  # one per class
    image_bytes: tuple[int, int, int]
    formats: dict[str, int]
    num_measured: int
    num_unreadable: int  # of those that were to be measured
    shorter_sides: tuple[int, int, int]
    longer_sides: tuple[int, int, int]


def split_statistics(dataset: ShardedDataset, name: str, *, seed: int = 0) -> SplitStatistics:
    """Count a split; sizes in pixels come from the headers of at most 1,000 images, chosen with `seed`."""
    split = dataset.split(name)
    table = SampleTable.open(samples_folder(dataset.folder, name))
    entries = read_index(dataset.folder).splits[name]
    labels = np.asarray(table.label)
    chosen = np.random.default_rng(seed).permutation(len(split))[:NUM_MEASURED]
    sizes = _sizes_in_pixels(split, chosen)
    return SplitStatistics(
        name=name,
        num_shards=len(entries),
        num_bytes=sum(entry.num_bytes for entry in entries),
        num_samples=len(table),
        num_unlabelled=int((labels == UNLABELLED).sum()),
        class_counts=np.bincount(labels[labels >= 0], minlength=len(dataset.classes)),
        image_bytes=_percentiles(table.size),
        formats={extension.decode(): count for extension, count in Counter(table.extension.tolist()).most_common()},
        num_measured=len(sizes),
        num_unreadable=len(chosen) - len(sizes),
        shorter_sides=_percentiles(sizes.min(axis=1)),
        longer_sides=_percentiles(sizes.max(axis=1)),
    )


def describe(dataset: ShardedDataset, splits: list[SplitStatistics]) -> str:
    """Return the statistics in words, one paragraph for each split."""
    lines = [f"{dataset.folder}: {dataset.name}, content hash {dataset.content_hash[:12]}"]
    for split in splits:
        formats = ", ".join(f"{count:,} {extension}" for extension, count in split.formats.items())
        lines += [
            f"{split.name}: {split.num_samples:,} images, {split.num_shards:,} shards, {split.num_bytes / 1e9:,.3f} GB",
            f"  formats      {formats}",
            f"  bytes        {_range(split.image_bytes)} per image (5%, median, 95%)",
        ]
        if split.num_measured:
            measured = f"pixels, of {split.num_measured:,} images"
            lines.append(f"  shorter side {_range(split.shorter_sides)} {measured}")
            lines.append(f"  longer side  {_range(split.longer_sides)} {measured}")
        if split.num_unreadable:
            looked_at = split.num_measured + split.num_unreadable
            advice = f"run `arvis-scale shards check {dataset.folder}`"
            lines.append(f"  unreadable   {split.num_unreadable:,} of {looked_at:,} images looked at; {advice}")
        lines += _classes(dataset.classes, split)
    return "\n".join(lines)


def _classes(classes: list[str], split: SplitStatistics) -> list[str]:
    if not classes:
        return ["  classes      none: unlabelled"]
    counts = split.class_counts
    unlabelled = f", {split.num_unlabelled:,} images without" if split.num_unlabelled else ""
    spread = f"{counts.min():,} to {counts.max():,} images each (median {np.median(counts):,.0f})"
    lines = [f"  classes      {len(classes):,}, {spread}{unlabelled}"]
    largest_first = np.argsort(-counts, kind="stable")
    lines += [f"    {classes[number]:<24} {counts[number]:>12,}" for number in largest_first[:NUM_CLASSES_NAMED]]
    if len(classes) > NUM_CLASSES_NAMED:
        lines.append(f"    and {len(classes) - NUM_CLASSES_NAMED:,} smaller or equal ones")
    return lines


def _sizes_in_pixels(split: ShardSplit, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Width and height, N x 2, of the images whose headers can be read."""
    sizes = []
    for sample in samples.tolist():
        try:
            sizes.append(Image.open(BytesIO(split.read(sample))).size)
        except (BadSample, UnidentifiedImageError, Image.DecompressionBombError):
            continue
    return np.array(sizes, dtype=np.int64).reshape(-1, 2)


def _percentiles(values: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    if len(values) == 0:
        return (0, 0, 0)
    low, middle, high = np.percentile(values, (5, 50, 95), method="nearest").astype(int).tolist()
    return (low, middle, high)


def _range(values: tuple[int, int, int]) -> str:
    return " / ".join(f"{value:,}" for value in values)
