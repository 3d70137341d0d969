"""The images that a run trains on and is measured on."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class DataConfig:
    """The images that the model is pretrained on."""

    # Folder written by `arvis-scale shards build`.
    shards: str = MISSING
    # Split that is trained on.
    train_split: str = "train"
    # Split whose loss is reported as validation loss; null: `test` where the shards have one, else a part of the train
    # split, `validation_fraction` of it.
    validation_split: str | None = None
    # Fraction of the train split held out for validation (seeded, never trained on) where there is no split for it.
    validation_fraction: float = 0.05
    # At most this many images (a seeded choice) give the validation loss; null: all of the split.
    validation_images: int | None = None
    # Seed of the permutation whose first `unique_images` entries are trained on; the same seed gives nested subsets.
    subset_seed: int = 0
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
    # Probe after every layer, not only the last; iGPT's encoder, which is best in the middle, always is.
    every_layer: bool = False
