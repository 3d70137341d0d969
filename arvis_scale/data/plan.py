"""Which image goes where: samples shuffled within their split, cut into shards, every offset known before writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arvis_scale.data.index import UNLABELLED, SampleTable
from arvis_scale.data.keyed_random import Purpose, keyed_permutation
from arvis_scale.data.layout import SPLITS, Place, assign_places
from arvis_scale.data.tar_layout import BLOCK, sample_offsets


@dataclass(frozen=True, slots=True)
class VerifiedImage:
    """An image that decodes; `ordinal` is its number in the source, the checksum tells if it changes under us."""

    ordinal: int
    path: str
    size: int
    crc32: int
    extension: str


@dataclass(frozen=True)
class PlannedShard:
    """A shard to be written; row i of `table` belongs to `images[i]`."""

    file: str
    images: list[VerifiedImage]
    table: SampleTable
    num_bytes: int


@dataclass(frozen=True)
class Plan:
    """Class names in sorted order (torchvision's ImageFolder numbers them so), and the shards of every split."""

    classes: list[str]
    splits: dict[str, list[PlannedShard]]


def plan_shards(images: Sequence[VerifiedImage], samples_per_shard: int, seed: int) -> Plan:
    """Plan shards of at most `samples_per_shard`; `images` come sorted by path, whatever their source's order.

    Raises `ValueError` where `layout.assign_places` does.
    """
    places = assign_places([image.path for image in images])
    classes = sorted({place.class_name for place in places if place.class_name is not None})
    labels = {name: number for number, name in enumerate(classes)}
    splits: dict[str, list[PlannedShard]] = {}
    for split_number, split in enumerate(SPLITS):
        members = [(image, place) for image, place in zip(images, places, strict=True) if place.split == split]
        if not members:
            continue
        order = keyed_permutation(len(members), Purpose.SHARD_ORDER, seed, split_number)
        splits[split] = [
            _plan_shard(
                f"{split}-{start // samples_per_shard:06d}.tar",
                [members[position] for position in order[start : start + samples_per_shard]],
                labels,
            )
            for start in range(0, len(members), samples_per_shard)
        ]
    return Plan(classes, splits)


def _plan_shard(file: str, samples: list[tuple[VerifiedImage, Place]], labels: dict[str, int]) -> PlannedShard:
    size = np.array([image.size for image, _ in samples], dtype=np.int64)
    label = np.array(
        [UNLABELLED if place.class_name is None else labels[place.class_name] for _, place in samples], dtype=np.int32
    )
    offset, num_bytes = sample_offsets(size, label)
    table = SampleTable(
        offset=offset + BLOCK,
        size=size,
        label=label,
        key=np.array([place.key.encode() for _, place in samples]),
        extension=np.array([image.extension.encode() for image, _ in samples]),
    )
    return PlannedShard(file, [image for image, _ in samples], table, num_bytes)
