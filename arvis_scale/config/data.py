"""The images that a run trains on and is measured on."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from arvis_scale.config.hints import one_of

SUBSET_KINDS = ("uniform", "balanced", "long_tail")
PROBE_KINDS = ("linear", "attentive", "knn")
# As `data.validation_split`; no split of shards has this name.
HELD_OUT = "held_out"
ADD_AN_INDEX = (
    "write an index over the shards, which stay where they are: arvis-scale shards build SHARDS DST --index-only"
)


@dataclass
class SubsetConfig:
    """Which `unique_images` of the training images are taken, with the seed `data.subset_seed` (docs/shards.md)."""

    # uniform: the first of one permutation | balanced: as many of each class | long_tail: the class of rank r, by a
    # seeded ranking, has a share proportional to r ** -exponent.
    kind: str = "uniform"
    exponent: float = 1.0
    # Only images of these classes, by name; empty: of all.
    classes: list[str] = field(default_factory=list)
    # Only images whose keys this text file lists, one per line; null: all.
    manifest: str | None = None

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        one_of("data.subset.kind", self.kind, SUBSET_KINDS)
        if self.exponent < 0:
            raise ValueError(f"data.subset.exponent={self.exponent} must not be negative")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"data.subset.classes={self.classes} names a class twice")


@dataclass
class MixPart:
    """One of several data sets that are mixed."""

    # Folder written by `arvis-scale shards build`.
    shards: str = MISSING
    # Whole number: of every `sum of all weights` images that are seen, exactly this many come from here.
    weight: int = 1
    # Number of different images of it (the first of its permutation); null: all of its train split.
    unique_images: int | None = None


@dataclass
class DataConfig:
    """The images that the model is pretrained on."""

    # Folder written by `arvis-scale shards build`, or its URL; null where `mix` names several.
    shards: str | None = None
    # Whether `shards` names .tar files without an index (a folder, a path or address, a brace pattern of them), which
    # webdataset's own pipeline streams, with weaker guarantees (docs/shards.md).
    streaming: bool = False
    # With `streaming`: folder with an index, whose `validation_split` gives the validation loss; null: there is none.
    validation_shards: str | None = None
    # With `streaming`: take `pipe:` addresses, which run shell commands, and shards with pickled members.
    allow_unsafe_shards: bool = False
    # Several data sets instead of one: [{shards: FOLDER, weight: 3}, {shards: FOLDER, weight: 1}].
    mix: list[MixPart] = field(default_factory=list)
    # Split that is trained on.
    train_split: str = "train"
    # Split whose loss is reported as validation loss. held_out: a part of the train split, whatever splits there are,
    # so that choices by this loss are not made on the images of a test | null: `test` where the shards have one, else
    # as held_out.
    validation_split: str | None = None
    # Fraction of the train split that `held_out` takes away from training (seeded, never trained on).
    validation_fraction: float = 0.05
    # At most this many images (a seeded choice) give the validation loss; null: all of the split, or held-out part.
    validation_images: int | None = None
    # Seed of the permutation whose first `unique_images` entries are trained on; the same seed gives nested subsets.
    subset_seed: int = 0
    # Which images those are.
    subset: SubsetConfig = field(default_factory=SubsetConfig)
    # Shards whose samples are shuffled together, and that are open at a time: an epoch shuffles the shards, cuts them
    # into windows of at most so many, and shuffles the samples of each window.
    window_shards: int = 64
    # What the images are at the end of an epoch that do not fill a global batch. wrap: the beginning of a batch that
    # goes on with the next epoch | drop: left out of this epoch.
    epoch_end: str = "wrap"
    # What a sample is that cannot be read or decoded. raise: the end of the run | skip: counted by its reason in
    # metrics.jsonl, and replaced by another one.
    on_bad_sample: str = "raise"
    # How often a read that fails is repeated, with growing pauses, before the sample counts as bad.
    num_read_retries: int = 3
    # How images become pixels. fast: of a JPEG photograph only what the crop needs is decoded | exact: all of it, and
    # Pillow resamples (docs/shards.md has what each costs, and how near they are). Other images are always exact.
    decoding: str = "fast"
    # Random resized crop: area kept, as fractions of the image's area, and aspect ratio (width / height).
    crop_scale_min: float = 0.3
    crop_scale_max: float = 1.0
    crop_ratio_min: float = 0.75
    crop_ratio_max: float = 1.5
    # Probability of a horizontal flip.
    horizontal_flip: float = 0.5
    # Loader worker processes per training process; 0 reads in the training process itself.
    num_workers: int = 0

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        self.subset.validate()
        self._validate_mix()
        self._validate_streaming()
        one_of("data.epoch_end", self.epoch_end, ("wrap", "drop"))
        one_of("data.on_bad_sample", self.on_bad_sample, ("raise", "skip"))
        one_of("data.decoding", self.decoding, ("fast", "exact"))
        if self.window_shards < 1:
            raise ValueError(f"data.window_shards={self.window_shards} must be at least 1")
        if self.num_read_retries < 0:
            raise ValueError(f"data.num_read_retries={self.num_read_retries} must not be negative")
        if self.subset_seed < 0:
            raise ValueError(f"data.subset_seed={self.subset_seed} must not be negative")
        for low, high in (("crop_scale_min", "crop_scale_max"), ("crop_ratio_min", "crop_ratio_max")):
            least, most = getattr(self, low), getattr(self, high)
            if not 0 < least <= most:
                raise ValueError(f"data.{low}={least} and data.{high}={most} are no range above 0")
        if self.crop_scale_max > 1:
            raise ValueError(f"data.crop_scale_max={self.crop_scale_max} is more than the whole image, 1")
        if not 0 <= self.horizontal_flip <= 1:
            raise ValueError(f"data.horizontal_flip={self.horizontal_flip} is no probability")

    def _validate_mix(self) -> None:
        if self.shards is None and not self.mix:
            raise ValueError("data.shards must be given (data.shards=FOLDER, or several folders as data.mix)")
        if self.shards is not None and self.mix:
            raise ValueError(f"data.shards={self.shards} and data.mix are both given; leave one of them out")
        for part in self.mix:
            if part.weight < 1:
                raise ValueError(f"data.mix: weight={part.weight} of {part.shards} must be a whole number, at least 1")
            if part.unique_images is not None and part.unique_images < 1:
                raise ValueError(f"data.mix: unique_images={part.unique_images} of {part.shards} must be at least 1")
        if self.mix and self.subset != SubsetConfig():
            raise ValueError("data.subset chooses from one data set, not from data.mix; leave one of them out")
        if self.mix and self.epoch_end == "drop":
            raise ValueError("data.epoch_end=drop: the data sets of data.mix have no epochs in common; take wrap")

    def _validate_streaming(self) -> None:
        if not self.streaming:
            for key in ("validation_shards", "allow_unsafe_shards"):
                if getattr(self, key):
                    raise ValueError(f"data.{key}={getattr(self, key)} is for data.streaming=true alone; leave it out")
            return
        if self.mix or self.subset != SubsetConfig() or self.epoch_end == "drop":
            raise ValueError(
                "data.streaming=true knows no samples by number, which data.mix, data.subset and data.epoch_end=drop "
                f"ask for; {ADD_AN_INDEX}"
            )
        if self.validation_split == HELD_OUT:
            raise ValueError(
                f"data.validation_split={HELD_OUT}: a stream knows no samples by number to hold out; name a split of "
                "data.validation_shards"
            )
        if self.validation_split is not None and self.validation_shards is None:
            raise ValueError(
                f"data.validation_split={self.validation_split}: a stream has no splits; name shards with an index as "
                "data.validation_shards=FOLDER"
            )


@dataclass
class ProbeDataConfig:
    """The labelled images that measure the encoder; most users pretrain on other, unlabelled ones."""

    # Folder written by `arvis-scale shards build` from labelled images; null: the run is not probed.
    shards: str | None = None
    # Split that the classifier is fitted on, and the one that its accuracy is measured on.
    train_split: str = "train"
    test_split: str = "test"
    # At most this many images (a seeded choice, the same for all runs) fit the classifier; null: all of the split.
    train_images: int | None = None
    # Which probes: linear, attentive, knn (docs/probes.md). A study's curves are drawn from `linear`.
    kinds: list[str] = field(default_factory=lambda: ["linear"])
    # Probe (linear, knn) after every layer, not only the last; iGPT's encoder, which is best in the middle, always is.
    every_layer: bool = False
    # Memory that the attentive probe may take for the tokens of its training images, in GiB; of more images they are
    # computed anew in every epoch, 200 times in all.
    token_memory_gib: float = 4.0

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no probe could be made with."""
        for kind in self.kinds:
            one_of("probe_data.kinds", kind, PROBE_KINDS)
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"probe_data.kinds={self.kinds} must name each probe once, and at least one")
