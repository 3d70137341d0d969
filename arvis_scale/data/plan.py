"""Which image goes where: samples shuffled within their split, cut into shards, every offset known before writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from arvis_scale.data.annotations import class_names
from arvis_scale.data.index import UNLABELLED, SampleTable
from arvis_scale.data.keyed_random import Purpose, keyed_permutation
from arvis_scale.data.layout import SPLITS, Place, annotated_places, assign_places
from arvis_scale.data.sources import SourceImage
from arvis_scale.data.tar_layout import BLOCK, sample_spans, shard_bytes
from arvis_scale.data.verify import VerifiedImage


@dataclass(frozen=True)
class ShardSize:
    """How large shards are: at most `num_samples` each, or about `num_bytes` each (one of the two is given).

    The shards of a split are as many as that takes, and equal within one sample.
    """

    num_samples: int | None
    num_bytes: int | None

    def __post_init__(self) -> None:
        assert (self.num_samples is None) != (self.num_bytes is None)
        if self.num_samples is not None and self.num_samples < 1:
            raise ValueError(f"the shard size is {self.num_samples} samples; a shard holds at least 1")
        if self.num_bytes is not None and self.num_bytes < 1:
            raise ValueError(f"the shard size is {self.num_bytes} bytes; 1GB is usual")

    def cuts(self, spans: npt.NDArray[np.int64]) -> list[int]:
        """Return where a split of samples of these spans (bytes) is cut: `[0, ..., number of samples]`."""
        ends = np.cumsum(spans)
        if self.num_samples is not None:
            num_shards = -(-len(spans) // self.num_samples)
            return [shard * len(spans) // num_shards for shard in range(num_shards + 1)]
        assert self.num_bytes is not None
        num_shards = -(-int(ends[-1]) // self.num_bytes)
        targets = np.arange(1, num_shards) * (int(ends[-1]) / num_shards)
        # A shard that one large sample fills leaves no cut of its own.
        return sorted({0, *(np.searchsorted(ends, targets, side="left") + 1).tolist(), len(spans)})


@dataclass(frozen=True)
class PlannedShard:
    """A shard to be written; row i of `table` belongs to `images[i]`."""

    file: str
    images: list[VerifiedImage]
    table: SampleTable
    num_bytes: int


@dataclass(frozen=True)
class Plan:
    """The class names in the order of their numbers, and the shards of every split."""

    classes: list[str]
    splits: dict[str, list[PlannedShard]]

    @property
    def shards(self) -> list[PlannedShard]:
        return [shard for shards in self.splits.values() for shard in shards]


def plan_shards(source: Sequence[SourceImage], verified: Sequence[VerifiedImage], size: ShardSize, seed: int) -> Plan:
    """Plan the shards of `verified`, images of the list `source`.

    Keys, images, labels, `size` and `seed` determine the shards; the order of the source and its own arrangement do
    not. Raises `ValueError` where `places_of` does.
    """
    places, classes = places_of([source[image.ordinal] for image in verified])
    by_key = sorted(range(len(places)), key=lambda number: places[number].key)
    places, verified = [places[number] for number in by_key], [verified[number] for number in by_key]
    images = [source[image.ordinal] for image in verified]
    table = _table(places, verified, classes)
    caption_sizes = np.array([len(caption_bytes(image)) for image in images], dtype=np.int64)
    spans = sample_spans(table.size, table.label, caption_sizes)
    splits: dict[str, list[PlannedShard]] = {}
    for number, split in enumerate(SPLITS):
        members = np.flatnonzero([place.split == split for place in places])
        if len(members):
            order = members[keyed_permutation(len(members), Purpose.SHARD_ORDER, seed, number)]
            splits[split] = _cut(split, order, table, spans, verified, size)
    return Plan(classes, splits)


def places_of(images: Sequence[SourceImage]) -> tuple[list[Place], list[str]]:
    """Return the places of images in their given order, and the class names in the order of their numbers.

    Raises `ValueError` where `layout.assign_places` and `annotations.class_names` do.
    """
    annotations = [image.annotation for image in images if image.annotation is not None]
    paths = [image.path for image in images]
    if annotations:
        places = annotated_places(annotations, paths)
        return places, class_names(place.class_name for place in places)
    places = assign_places(paths)
    # torchvision's ImageFolder numbers classes so.
    return places, sorted({place.class_name for place in places if place.class_name is not None})


def caption_bytes(image: SourceImage) -> bytes:
    """Return an image's caption as a shard holds it; empty where there is none."""
    if image.annotation is None or image.annotation.caption is None:
        return b""
    return image.annotation.caption.encode()


def _table(places: Sequence[Place], images: Sequence[VerifiedImage], classes: list[str]) -> SampleTable:
    """The rows of all images in their given order; offsets are yet 0."""
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(classes)} | {None: UNLABELLED}
    return SampleTable(
        offset=np.zeros(len(images), dtype=np.int64),
        size=np.array([image.facts.num_bytes for image in images], dtype=np.int64),
        label=np.array([numbers[place.class_name] for place in places], dtype=np.int32),
        key=np.array([place.key.encode() for place in places]),
        extension=np.array([image.facts.extension.encode() for image in images]),
    )


def _cut(
    split: str,
    order: npt.NDArray[np.int64],
    table: SampleTable,
    spans: npt.NDArray[np.int64],
    images: Sequence[VerifiedImage],
    size: ShardSize,
) -> list[PlannedShard]:
    cuts = size.cuts(spans[order])
    shards = []
    for number, (start, end) in enumerate(pairwise(cuts)):
        rows = order[start:end]
        ends = np.cumsum(spans[rows])
        placed = SampleTable(
            offset=ends - spans[rows] + BLOCK,  # the image's own bytes begin one block after its header
            size=table.size[rows],
            label=table.label[rows],
            key=table.key[rows],
            extension=table.extension[rows],
        )
        file = f"{split}-{number:06d}.tar"
        shards.append(PlannedShard(file, [images[row] for row in rows], placed, shard_bytes(spans[rows])))
    return shards
