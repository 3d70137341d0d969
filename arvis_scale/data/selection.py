"""Which images a run trains on, in which order, and which it validates on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from braceexpand import braceexpand

from arvis_scale.config import DataConfig
from arvis_scale.config.data import ADD_AN_INDEX, HELD_OUT
from arvis_scale.data.apportionment import apportion
from arvis_scale.data.class_shares import balanced_places, long_tail_places
from arvis_scale.data.mixing import MixedDataset, MixedOrder, MixedSplit
from arvis_scale.data.order import Order, SampleOrder
from arvis_scale.data.remote import is_remote
from arvis_scale.data.sample_sets import LISTED_LIMIT, ListedSamples, SampleSet
from arvis_scale.data.shards import ShardedDataset, ShardSplit, Split, open_shards
from arvis_scale.data.sources import source_name
from arvis_scale.data.subsets import (
    all_samples,
    first_of,
    hold_out,
    nested_subset,
    places_of_classes,
    samples_of_manifest,
)
from arvis_scale.data.webdataset_shards import list_shards

EXACT_NOTE = "exact: a function of seed and subset, every image once in an epoch"
STREAM_NOTE = (
    "streamed without an index: the order depends on processes and workers, a pass need not see every image once, "
    "a run that goes on begins the stream anew in another order, and a cut shard ends early without an error"
)
# Of addresses, what webdataset opens by itself: curl and gsutil read them.
STREAMED_PROTOCOLS = ("http", "https", "gs", "file")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subset:
    """The training images as result.json records them: name, hash and number."""

    name: str
    hash: str
    # null: of a stream, not known.
    unique_images: int | None


@dataclass(frozen=True)
class _Part:
    """What a run takes of one data set, and the weight it has in a mix."""

    dataset: ShardedDataset
    weight: int
    train_split: ShardSplit
    train: SampleSet
    subset_name: str
    validation_split: ShardSplit
    validation: SampleSet

    @property
    def subset_hash(self) -> str:
        """SHA-256 over the data set, the split and the samples taken, in hexadecimal."""
        digest = hashlib.sha256(f"{self.dataset.content_hash} {self.train_split.name} ".encode())
        digest.update(self.train.digest())
        return digest.hexdigest()


class Selection:
    """The images of a run: of one data set, or of several that are mixed."""

    # What the run folder says of the order that they are seen in.
    order_note = EXACT_NOTE
    # Number of different training images; None: of a stream, not known.
    unique_images: int | None
    dataset: ShardedDataset | MixedDataset | StreamedDataset

    def __init__(self, parts: Sequence[_Part], config: DataConfig) -> None:
        self._parts = parts
        self._config = config
        self._weights = [part.weight for part in parts]
        self.unique_images = sum(len(part.train) for part in parts)
        self.dataset = parts[0].dataset
        self.train_split: Split = parts[0].train_split
        self.validation_split: Split = parts[0].validation_split
        self._train_firsts = validation_firsts = np.zeros(1, dtype=np.int64)
        if config.mix:
            self.dataset = MixedDataset(
                [part.dataset for part in parts], self._weights, [len(part.train) for part in parts]
            )
            self.train_split = train = MixedSplit([part.train_split for part in parts])
            self.validation_split = validation = MixedSplit([part.validation_split for part in parts])
            self._train_firsts, validation_firsts = train.first_samples, validation.first_samples
        self.validation_indices = self._choose_validation(validation_firsts)

    @property
    def subset(self) -> Subset:
        """The training images by name, hash and number."""
        if not self._config.mix:
            return Subset(self._parts[0].subset_name, self._parts[0].subset_hash, self.unique_images)
        name = "+".join(f"{part.weight}x{part.dataset.name}:{part.subset_name}" for part in self._parts)
        content = " ".join(f"{part.weight} {part.subset_hash}" for part in self._parts)
        return Subset(name, hashlib.sha256(content.encode()).hexdigest(), self.unique_images)

    def order(self, seed: int, global_batch_size: int) -> Order:
        """Return the order in which the training images are seen.

        Raises `ValueError` when `data.epoch_end=drop` would leave nothing of an epoch.
        """
        epoch_multiple = global_batch_size if self._config.epoch_end == "drop" else 1
        orders = [
            SampleOrder(part.train, seed, window_shards=self._config.window_shards, epoch_multiple=epoch_multiple)
            for part in self._parts
        ]
        return MixedOrder(orders, self._weights, self._train_firsts, seed) if self._config.mix else orders[0]

    def training_images(self) -> npt.NDArray[np.int64]:
        """Return the numbers of all training images, rising; 8 bytes each."""
        firsts = self._train_firsts.tolist()
        listed = [first + part.train.listed() for first, part in zip(firsts, self._parts, strict=False)]
        return np.sort(np.concatenate(listed))

    def some_training_images(self) -> npt.NDArray[np.int64]:
        """Return numbers of training images: all, or four million of them; in no order, whatever the weights."""
        sizes = np.array([len(part.train) for part in self._parts])
        counts = apportion(min(LISTED_LIMIT, int(sizes.sum())), sizes.astype(np.float64), sizes)
        return np.concatenate(
            [
                first + _spread(part.train, count)
                for first, part, count in zip(self._train_firsts.tolist(), self._parts, counts.tolist(), strict=False)
            ]
        )

    def _choose_validation(self, firsts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the images to validate on: of each data set all, or a share by weight of `validation_images`."""
        counts = sizes = np.array([len(part.validation) for part in self._parts])
        limit = self._config.validation_images
        if limit is not None and limit < sizes.sum():
            counts = apportion(limit, np.array(self._weights, dtype=np.float64), sizes)
        chosen = []
        for first, part, count in zip(firsts.tolist(), self._parts, counts.tolist(), strict=False):
            samples = part.validation
            if count < len(samples) and isinstance(samples, ListedSamples):
                samples = samples.at(np.sort(nested_subset(len(samples), count, seed=self._config.subset_seed)))
            elif count < len(samples):
                samples = first_of(samples, count, self._config.subset_seed)
            chosen.append(first + samples.listed())
        return np.concatenate(chosen)


@dataclass(frozen=True)
class StreamedDataset:
    """What names shards without an index: their addresses, none of which was read."""

    name: str
    folder: str
    urls: Sequence[str]

    @property
    def content_hash(self) -> str:
        """SHA-256 over the names of the shards, in hexadecimal; what is in them is not known."""
        names = sorted(url.rsplit("/", 1)[-1] for url in self.urls)
        return hashlib.sha256("\n".join(names).encode()).hexdigest()


class StreamedSelection(Selection):
    """Training images that come as a stream, none of them by number, and maybe a split with an index to validate on."""

    order_note = STREAM_NOTE
    unique_images = None
    dataset: StreamedDataset

    def __init__(self, config: DataConfig) -> None:
        """Raises `ValueError` when there are no shards, for addresses that webdataset cannot open, and for `pipe:`
        unless `data.allow_unsafe_shards`.
        """
        assert config.shards is not None, "DataConfig.validate sees to it"
        if config.shards.startswith("pipe:") and config.allow_unsafe_shards:
            urls = list(braceexpand(config.shards))
        else:
            urls = [shard.file for shard in list_shards(config.shards) if shard.split == config.train_split]
        if not urls:
            raise ValueError(f"{config.shards} names no shard of split {config.train_split!r}; name others")
        for url in urls:
            if is_remote(url) and url.split("://")[0] not in STREAMED_PROTOCOLS:
                raise ValueError(f"{url}: data.streaming=true reads disks, http(s) and gs alone; {ADD_AN_INDEX}")
        self.dataset = StreamedDataset(source_name(config.shards), config.shards, urls)
        self.validation_indices = np.zeros(0, dtype=np.int64)
        if config.validation_shards is not None:
            self.validation_split = open_shards(config.validation_shards).split(config.validation_split or "test")
            self.validation_indices = np.arange(len(self.validation_split))
            if config.validation_images is not None and config.validation_images < len(self.validation_indices):
                chosen = nested_subset(len(self.validation_split), config.validation_images, seed=config.subset_seed)
                self.validation_indices = np.sort(chosen)

    @property
    def subset(self) -> Subset:
        """All that the shards hold; how much that is nobody knows."""
        return Subset(f"stream-of-{len(self.dataset.urls)}-shards", self.dataset.content_hash, None)


def select_images(config: DataConfig, unique_images: int | None) -> Selection:
    """Open the shards and choose the images.

    Raises `ValueError` when a split is missing or `unique_images` exceeds what the train split offers.
    """
    if config.streaming:
        return StreamedSelection(config)
    if not config.mix:
        assert config.shards is not None, "DataConfig.validate sees to it"
        return Selection([_select(config, config.shards, unique_images, weight=1)], config)
    if unique_images is not None:
        raise ValueError(
            f"unique_images={unique_images} is for one data set; give each one of data.mix its own unique_images"
        )
    return Selection([_select(config, part.shards, part.unique_images, part.weight) for part in config.mix], config)


def validation_split_of(config: DataConfig, dataset: ShardedDataset) -> str:
    """Return the name of the split of `dataset` that gives the validation loss, or `held_out`."""
    return config.validation_split or ("test" if "test" in dataset.splits else HELD_OUT)


def _select(config: DataConfig, shards: str, unique_images: int | None, weight: int) -> _Part:
    allow_damage = config.on_bad_sample == "skip"
    dataset = open_shards(
        shards,
        num_retries=config.num_read_retries,
        allow_damage=allow_damage,
        max_open_shards=config.window_shards,
    )
    train_split = validation_split = dataset.split(config.train_split)
    validation_name = validation_split_of(config, dataset)
    if validation_name == HELD_OUT:
        pool, validation = hold_out(train_split.shard_sizes, config.validation_fraction, config.subset_seed)
    else:
        pool = all_samples(train_split.shard_sizes, config.subset_seed)
        validation_split = dataset.split(validation_name)
        validation = all_samples(validation_split.shard_sizes, config.subset_seed)
    try:
        train = _subset(config, dataset, train_split, pool, unique_images)
    except ValueError as error:
        beside = f" beside the {len(validation):,} held out for validation" if validation_name == HELD_OUT else ""
        raise ValueError(f"{shards}, split {config.train_split!r}{beside}: {error}") from error
    name = _subset_name(config, None if unique_images is None else len(train))
    return _Part(dataset, weight, train_split, train, name, validation_split, validation)


def _subset(
    config: DataConfig, dataset: ShardedDataset, split: ShardSplit, pool: SampleSet, unique_images: int | None
) -> SampleSet:
    """Return the first `unique_images` of the kind of subset asked for, out of `pool`."""
    subset, seed = config.subset, config.subset_seed
    if subset.kind == "uniform" and not subset.classes and subset.manifest is None:
        return first_of(pool, unique_images, seed)
    samples = pool.listed()
    if subset.manifest is not None:
        wanted = samples_of_manifest(Path(subset.manifest), split.keys)
        samples = samples[np.isin(samples, wanted)]
        if len(samples) < len(wanted):
            num_held_out = len(wanted) - len(samples)
            _logger.warning("%s: %d of its images are held out for validation", subset.manifest, num_held_out)
    if subset.classes or subset.kind != "uniform":
        all_labels = split.labels
        if all_labels is None:
            raise ValueError("data.subset goes by classes, but not every image has a label; label them or leave it out")
        labels = all_labels[samples]
        if subset.classes:
            places = places_of_classes(labels, subset.classes, dataset.classes)
            samples, labels = samples[places], labels[places]
    if len(samples) == 0:
        raise ValueError("data.subset leaves no image to train on; name other classes or keys")
    if subset.kind == "balanced":
        places = balanced_places(labels, unique_images, seed, dataset.classes)
    elif subset.kind == "long_tail":
        places = long_tail_places(labels, unique_images, subset.exponent, seed)
    else:
        places = nested_subset(len(samples), unique_images, seed)
    return ListedSamples(samples[places], split.shard_sizes)


def _subset_name(config: DataConfig, unique_images: int | None) -> str:
    """Return the subset in a word, such as `uniform-1000-seed0` or `long_tail1.5-1000-seed0-of-3-classes`."""
    subset = config.subset
    exponent = f"{subset.exponent:g}" if subset.kind == "long_tail" else ""
    words = [f"{subset.kind}{exponent}", "all" if unique_images is None else str(unique_images)]
    words += [f"seed{config.subset_seed}"]
    if subset.classes:
        words.append(f"of-{len(subset.classes)}-classes")
    if subset.manifest is not None:
        words.append(f"of-{Path(subset.manifest).stem}")
    return "-".join(words)


def _spread(samples: SampleSet, count: int) -> npt.NDArray[np.int64]:
    """Return `count` of `samples`, from everywhere in their order."""
    if isinstance(samples, ListedSamples):
        return samples.listed()[np.arange(count) * len(samples) // max(count, 1)]
    return first_of(samples, count, seed=0).listed() if count else np.zeros(0, dtype=np.int64)
