"""A VQ tokenizer as teacher, and its training: tokens are codebook vectors, as in VQ-VAE (arXiv 1711.00937)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from arvis_scale.atomic import read_json, whole_file, write_json
from arvis_scale.models.images import normalize
from arvis_scale.models.teachers.teacher import Teacher, TeacherShape, with_mean_token
from arvis_scale.models.teachers.vq_model import VqAutoencoder, VqSize
from arvis_scale.models.weight_files import check_fits, read_weights

CONFIG_NAME = "vq_config.json"
WEIGHTS_NAME = "vq_model.safetensors"
_SCHEMA_VERSION = 1


class VqTeacher(Teacher):
    """The nearest codebook vector of every patch; the class token is their mean."""

    def __init__(
        self,
        model: VqAutoencoder,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,  # of weights, computation and tokens
    ) -> None:
        size = model.size
        super().__init__(TeacherShape(size.code_width, size.grid), image_size=size.image_size, device=device)
        self.model = model.eval().requires_grad_(False).to(device=device, dtype=dtype)

    def tokens(self, images: Tensor) -> Tensor:
        codes = self.model.codebook(self.model.encoder(images)).vectors  # B x C x g x g
        return with_mean_token(codes.flatten(2).transpose(1, 2))


def from_vq(folder: Path | str, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> VqTeacher:
    """Return the tokenizer in a folder that `train_vq` wrote; `ValueError` when it holds none or a damaged one."""
    model = VqAutoencoder(_read_size(Path(folder)))
    path = Path(folder) / WEIGHTS_NAME
    weights = read_weights(path)
    check_fits(weights, model.state_dict(), source=str(path), model=f"the VQ tokenizer of {CONFIG_NAME}")
    model.load_state_dict(weights)
    return VqTeacher(model, device=device, dtype=dtype)


def vq_shape(folder: Path | str) -> TeacherShape:
    """Return the shape of the tokens of `from_vq(folder)` without reading its weights."""
    size = _read_size(Path(folder))
    return TeacherShape(size.code_width, size.grid)


def _read_size(folder: Path) -> VqSize:
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise ValueError(f"teacher checkpoint {folder} has no {CONFIG_NAME}; name a folder of `weights train-vq`")
    values = read_json(path, newest_schema=_SCHEMA_VERSION)
    names = [field.name for field in fields(VqSize)]
    if not all(isinstance(values.get(name), int) for name in names):
        raise ValueError(f"{path} must hold whole numbers for {', '.join(names)}; train the tokenizer again")
    return VqSize(**{name: values[name] for name in names})


@dataclass(frozen=True)
class TrainedVq:
    """What `train_vq` made."""

    # Folder with vq_config.json and vq_model.safetensors.
    folder: Path
    # Squared error of a pixel value of the last batch, ImageNet-normalised; 1 is about what a grey image gives.
    reconstruction_error: float
    # Different codes that the last batch used.
    num_codes_used: int


def train_vq(
    batches: Iterable[Tensor],
    destination: Path | str,
    *,
    size: VqSize,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> TrainedVq:
    """Train a VQ tokenizer, one Adam step per batch, and write it to the folder `destination`.

    `batches`: images, uint8, `B x 3 x image_size x image_size`. Raises `ValueError` when there are none, or none of
    that size.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VqAutoencoder(size).to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.95))
    error, used, step = torch.tensor(0.0), 0, 0
    for images in batches:
        if images.shape[1:] != (3, size.image_size, size.image_size):
            got = " x ".join(map(str, images.shape[1:]))
            raise ValueError(f"images are {got}, the VQ tokenizer takes 3 x {size.image_size} x {size.image_size}")
        normalized = normalize(images.to(device))
        if step == 0:
            with torch.no_grad():
                model.codebook.start(model.encoder(normalized), generator)
        loss, error, encoded, quantized = model(normalized)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.codebook.follow(encoded.detach(), quantized.numbers, generator)
        used = len(quantized.numbers.unique())
        step += 1
    if step == 0:
        raise ValueError("there are no images to train the VQ tokenizer on")
    _save(model, Path(destination))
    return TrainedVq(Path(destination), error.item(), used)


def _save(model: VqAutoencoder, folder: Path) -> None:
    """Write weights, then configuration: a folder that has the configuration is complete."""
    with whole_file(folder / WEIGHTS_NAME) as temporary:
        save_file({name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}, temporary)
    write_json(folder / CONFIG_NAME, {"schema_version": _SCHEMA_VERSION, **asdict(model.size)})
