"""Fine-tuning of a completed run's encoder (`arvis-scale finetune`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class FinetuneConfig:
    """How encoder and classifier are trained together on `probe_data`; the defaults are D-iGPT's for ViT-B."""

    # Passes over the training images, and those of them in which the learning rate rises from 0.
    epochs: int = 100
    warmup_epochs: int = 5
    # Images per optimizer step, and per forward pass; the second is even where images are mixed.
    batch_size: int = 1024
    micro_batch_size: int = 64
    # Peak learning rate of the classifier at a batch of 256 images; it grows with the batch, and ends at `last_...`.
    learning_rate_per_256: float = 1e-4
    last_learning_rate: float = 1e-6
    # Each layer below has this fraction of the learning rate of the one above.
    layer_decay: float = 0.65
    # Of matrices; biases, norms and other 1-d parameters have none.
    weight_decay: float = 0.05
    # Stochastic depth of the last layer; linear from 0 over depth.
    drop_path: float = 0.1
    # Random resized crop: least area kept, as a fraction of the image's; its ratio and the flip are those of `data`.
    crop_scale_min: float = 0.08
    # RandAugment in timm's notation (null: none), and the probability of random erasing.
    rand_augment: str | None = "rand-m9-mstd0.5-inc1"
    erasing: float = 0.25
    # Parameters of the Beta distributions of mixup and cutmix; 0: off.
    mixup: float = 0.8
    cutmix: float = 1.0
    label_smoothing: float = 0.1

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no fine-tuning could run with."""
        for key in ("epochs", "batch_size", "micro_batch_size"):
            if getattr(self, key) < 1:
                raise ValueError(f"finetune.{key}={getattr(self, key)} must be at least 1")
        for key in ("warmup_epochs", "learning_rate_per_256", "last_learning_rate", "weight_decay", "mixup", "cutmix"):
            if getattr(self, key) < 0:
                raise ValueError(f"finetune.{key}={getattr(self, key)} must not be negative")
        for key in ("drop_path", "erasing", "label_smoothing"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(f"finetune.{key}={getattr(self, key)} must lie between 0 and 1, 1 excluded")
        for key in ("layer_decay", "crop_scale_min"):
            if not 0 < getattr(self, key) <= 1:
                raise ValueError(f"finetune.{key}={getattr(self, key)} must lie between 0, excluded, and 1")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"finetune.warmup_epochs={self.warmup_epochs} is more than finetune.epochs={self.epochs}")
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"finetune.batch_size={self.batch_size} is not a multiple of finetune.micro_batch_size="
                f"{self.micro_batch_size}; change one"
            )
        if self.is_mixed and self.micro_batch_size % 2:
            raise ValueError(f"finetune.micro_batch_size={self.micro_batch_size} is odd; images are mixed in pairs")

    @property
    def is_mixed(self) -> bool:
        """Whether images are mixed at all."""
        return self.mixup > 0 or self.cutmix > 0
