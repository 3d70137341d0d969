"""A small CLIP model trained from scratch on labelled images, as a teacher for studies that fit on a laptop.

The model, its tokenizer and its loss are open_clip's; a caption is the class name, `a photo of a {class}`. The result
is a folder that `teachers.from_open_clip`, and open_clip itself as `local-dir:FOLDER`, load.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arvis_scale.atomic import whole_file, write_json

_CONTEXT_LENGTH = 24  # caption tokens; longer class names are cut
_HEAD_WIDTH = 16  # channels of an attention head of the vision tower
_MAX_LOGIT_SCALE = math.log(100)  # as CLIP (arXiv 2103.00020, section 2.5) clips its temperature


@dataclass(frozen=True)
class SmallClip:
    """What `train_small_clip` made."""

    # Folder with open_clip_config.json and open_clip_model.safetensors.
    folder: Path
    # Contrastive loss of the last step, in nats.
    loss: float
    # Fraction of the training images whose own caption is the nearest one, and what guessing gives.
    zero_shot_accuracy: float
    chance: float

    def summary(self) -> str:
        """Return one line that says how well the model tells the classes apart."""
        accuracy = f"zero-shot accuracy {self.zero_shot_accuracy:.3f} on its training images (chance {self.chance:.3f})"
        return f"{self.folder}: {accuracy}"


def train_small_clip(
    batches: Iterable[tuple[Tensor, Tensor]],
    class_names: Sequence[str],
    destination: Path | str,
    *,
    image_size: int,
    patch_size: int,
    width: int = 64,
    depth: int = 4,
    steps: int = 200,
    images_per_class: int = 4,
    max_classes_per_step: int = 64,
    learning_rate: float = 2e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> SmallClip:
    """Train a small CLIP model on labelled images and write it to the folder `destination`.

    `batches`: images (uint8, `B x 3 x H x W`) and labels (int64, `B`, into `class_names`), read once and held in
    memory; images of another size than `image_size` are resized. `image_size`, `patch_size`: pixels. `width`, `depth`:
    of the vision tower. Raises `ValueError` for sizes that do not fit and for classes without images.

    Captions repeat: two images of one class in a contrastive batch would be each other's false negatives. So each
    contrastive batch holds one image of each class (of `max_classes_per_step` random ones, when there are more), and a
    step averages the loss over `images_per_class` such batches.
    """
    import open_clip

    if patch_size < 1 or image_size % patch_size:
        raise ValueError(f"patch_size={patch_size} does not divide image_size={image_size}; choose a divisor")
    if depth < 1:
        raise ValueError(f"depth={depth} of the small CLIP model must be at least 1")
    if width < 1 or width % _HEAD_WIDTH:
        raise ValueError(f"width={width} of the small CLIP model is not a multiple of {_HEAD_WIDTH}")
    config = _model_config(image_size, patch_size, width, depth)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.model.CLIP(**config).to(device)
    preprocess = open_clip.transform.PreprocessCfg(size=image_size)
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=_CONTEXT_LENGTH)
    captions = tokenizer([f"a photo of a {name}" for name in class_names]).to(device)
    images = _LabelledImages(batches, class_names, image_size, preprocess.mean, preprocess.std, device)
    sampler = _ClassSampler(images.labels, len(class_names), images_per_class, max_classes_per_step, seed)
    loss = _train(model, images, captions, sampler, steps, learning_rate)
    accuracy = _zero_shot_accuracy(model, images, captions)
    _save(model, Path(destination), config, asdict(preprocess))
    return SmallClip(Path(destination), loss, accuracy, chance=1 / len(class_names))


def _model_config(image_size: int, patch_size: int, width: int, depth: int) -> dict[str, Any]:
    """Return an open_clip model configuration; the text tower only has to tell class names apart."""
    return {
        "embed_dim": width,
        "vision_cfg": {
            "image_size": image_size,
            "patch_size": patch_size,
            "width": width,
            "layers": depth,
            "head_width": _HEAD_WIDTH,
        },
        "text_cfg": {"context_length": _CONTEXT_LENGTH, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }


class _LabelledImages:
    """All images in memory, normalised as they are taken."""

    def __init__(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        class_names: Sequence[str],
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
    ) -> None:
        read = list(batches)
        if not read:
            raise ValueError("there are no labelled images to train the small CLIP model on")
        self.pixels = torch.cat([images for images, _ in read])  # n x 3 x H x W, uint8
        self.labels = torch.cat([labels for _, labels in read])  # n
        if len(class_names) < 2 or not 0 <= self.labels.min() <= self.labels.max() < len(class_names):
            raise ValueError(
                f"labels run from {self.labels.min()} to {self.labels.max()} for {len(class_names)} class names; "
                "the small CLIP model needs at least two classes and a name for every label"
            )
        empty = sorted(set(range(len(class_names))) - set(self.labels.tolist()))
        if empty:
            raise ValueError(f"class {class_names[empty[0]]!r} has no image to train the small CLIP model on")
        self.image_size = image_size
        self.device = device
        self.mean = torch.tensor(mean, device=device).view(3, 1, 1)
        self.std = torch.tensor(std, device=device).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> Tensor:
        """Return the images at `index`, normalised as the model takes them, on its device."""
        pixels = self.pixels[index].to(self.device).float() / 255
        size = (self.image_size, self.image_size)
        if pixels.shape[-2:] != size:
            pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True)
        return (pixels - self.mean) / self.std


class _ClassSampler:
    """Draws contrastive batches in which no class occurs twice."""

    def __init__(self, labels: Tensor, num_classes: int, images_per_class: int, max_classes: int, seed: int) -> None:
        self.by_class = labels.argsort(stable=True)
        self.counts = torch.bincount(labels, minlength=num_classes)
        self.starts = self.counts.cumsum(0) - self.counts
        self.images_per_class = images_per_class
        self.max_classes = max_classes
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Return image indices, `images_per_class x classes`, and the classes of its columns."""
        classes = torch.randperm(len(self.counts), generator=self.generator)[: self.max_classes]
        fraction = torch.rand(self.images_per_class, len(classes), generator=self.generator, dtype=torch.float64)
        place = self.starts[classes] + (fraction * self.counts[classes]).long()
        return self.by_class[place], classes


def _train(
    model: Any,
    images: _LabelledImages,
    captions: Tensor,
    sampler: _ClassSampler,
    steps: int,
    learning_rate: float,
) -> float:
    """Minimise open_clip's contrastive loss; return that of the last step."""
    from open_clip.loss import ClipLoss

    contrastive = ClipLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    for _ in range(steps):
        index, classes = sampler.draw()
        image_features = model.encode_image(images.take(index.flatten()), normalize=True)
        text_features = model.encode_text(captions[classes.to(captions.device)], normalize=True)
        groups = image_features.unflatten(0, index.shape)  # images_per_class x classes x C
        scale = model.logit_scale.exp()
        loss = torch.stack([contrastive(group, text_features, scale) for group in groups]).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, _MAX_LOGIT_SCALE)
    return loss.item()


def _rate(step: int, steps: int) -> float:
    """Return the share of the peak rate in a step from 0: up over a tenth of the steps, then down along a cosine."""
    num_up = max(1, steps // 10)
    if step < num_up:
        return (step + 1) / num_up
    return 0.5 * (1 + math.cos(math.pi * (step - num_up) / max(1, steps - num_up)))


@torch.no_grad()
def _zero_shot_accuracy(model: Any, images: _LabelledImages, captions: Tensor) -> float:
    text_features = model.encode_text(captions, normalize=True)
    num_right = 0
    for index in torch.arange(len(images)).split(512):
        features = model.encode_image(images.take(index), normalize=True)
        nearest = (features @ text_features.T).argmax(dim=1).cpu()
        num_right += int((nearest == images.labels[index]).sum())
    return num_right / len(images)


def _save(model: Any, folder: Path, config: dict[str, Any], preprocess: dict[str, Any]) -> None:
    """Write the folder in open_clip's own layout; the configuration comes last, so a folder that has it is complete."""
    from safetensors.torch import save_file

    with whole_file(folder / "open_clip_model.safetensors") as temporary:
        save_file({name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}, temporary)
    kept = {key: preprocess[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    write_json(folder / "open_clip_config.json", {"schema_version": 1, "model_cfg": config, "preprocess_cfg": kept})
