"""Frozen image towers whose semantic tokens D-iGPT predicts."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from arvis_scale.models.normalization import IMAGENET_MEAN, IMAGENET_STD


class Teacher(Protocol):
    """Maps images to semantic tokens. No part of the objective: it is not trained, saved or partitioned with it."""

    # Channels of a token, and patch tokens per side of the image.
    width: int
    grid: int

    def __call__(self, images: Tensor) -> Tensor:
        """ImageNet-normalised `B x 3 x H x W` -> `B x (1 + grid*grid) x width`, class token first, no gradient."""


class OpenClipTeacher:
    """An open_clip vision transformer in inference mode."""

    def __init__(
        self,
        tower: Any,  # `visual` of an open_clip model: its VisionTransformer
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,  # of weights, computation and tokens
    ) -> None:
        _check_tower(tower)
        self.tower = tower.eval().requires_grad_(False).to(device=device, dtype=dtype)
        self.dtype = dtype
        self.image_size: int = tower.image_size[0]
        self.grid: int = tower.grid_size[0]
        self.width: int = tower.output_dim
        # (x * std + mean) undoes ImageNet's statistics; the tower has its own.
        mean, std = torch.tensor(tower.image_mean), torch.tensor(tower.image_std)
        self._scale = (torch.tensor(IMAGENET_STD) / std).view(3, 1, 1).to(device)
        self._shift = ((torch.tensor(IMAGENET_MEAN) - mean) / std).view(3, 1, 1).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """ImageNet-normalised `B x 3 x H x W` -> `B x (1 + grid*grid) x width`, in `dtype`.

        The tokens are the tower's last ones after its final LayerNorm and output projection, at every position
        (open_clip itself projects the class token only). Images of another size are resized to the tower's.
        """
        with torch.inference_mode():
            tokens = self._tokens(images)
        # Autograd refuses to save inference tensors; a copy made outside is an ordinary tensor.
        return tokens.clone()

    def _tokens(self, images: Tensor) -> Tensor:
        images = images.float() * self._scale + self._shift
        if images.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)
        last = self.tower.forward_intermediates(
            images.to(self.dtype),
            indices=1,
            normalize_intermediates=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        tokens = torch.cat([last["image_intermediates_prefix"][0], last["image_intermediates"][0]], dim=1)
        return tokens @ self.tower.proj


def _check_tower(tower: Any) -> None:
    from open_clip.transformer import VisionTransformer

    if not isinstance(tower, VisionTransformer):
        raise ValueError(f"the teacher's image tower is a {type(tower).__name__}, not an open_clip VisionTransformer")
    if tower.attn_pool is not None or tower.pool_type != "tok":
        raise ValueError(f"the teacher pools by {tower.pool_type!r}; a tower with pool_type 'tok' is needed")
    if tower.grid_size[0] != tower.grid_size[1]:
        raise ValueError(f"the teacher's grid is {tower.grid_size}, not square")


def from_open_clip(
    checkpoint: Path | str,
    *,
    architecture: str = "ViT-H-14",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> OpenClipTeacher:
    """Return the teacher in a local open_clip checkpoint; nothing is ever downloaded.

    `checkpoint`: a folder with `open_clip_config.json` and weights (as `train_small_clip` and open_clip's hub format
    write it), or a file of weights of `architecture` (an open_clip model name). Raises `ValueError` naming what is
    missing or does not fit.
    """
    import open_clip
    from safetensors import SafetensorError

    path = Path(checkpoint)
    if path.is_dir():
        name, weights = f"local-dir:{path}", None
        if not (path / "open_clip_config.json").is_file():
            raise ValueError(
                f"teacher checkpoint {path} has no open_clip_config.json; name a folder that has, or a file"
            )
    elif path.is_file():
        name, weights = architecture, str(path)
        if architecture not in open_clip.list_models():
            raise ValueError(f"open_clip knows no architecture {architecture!r}; see open_clip.list_models()")
    else:
        raise ValueError(f"teacher checkpoint {path} does not exist; name an open_clip folder or file of weights")
    try:
        model = open_clip.create_model(name, pretrained=weights, require_pretrained=True)
    except (RuntimeError, ValueError, KeyError, TypeError, OSError, SafetensorError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"teacher checkpoint {path} does not load as open_clip's {name}: {reason}") from error
    return OpenClipTeacher(model.visual, device=device, dtype=dtype)
