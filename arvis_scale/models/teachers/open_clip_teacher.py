"""open_clip's vision transformers as teachers; D-iGPT's own is ViT-H/14 (arXiv 2312.02147)."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arvis_scale.config import suggestion
from arvis_scale.models.teachers.teacher import Teacher, TeacherShape

CONFIG_NAME = "open_clip_config.json"


class OpenClipTeacher(Teacher):
    """An open_clip vision transformer in inference mode.

    Its tokens are the tower's last ones after the final LayerNorm and the output projection, at every position
    (open_clip itself projects the class token only).
    """

    def __init__(
        self,
        tower: Any,  # `visual` of an open_clip model: its VisionTransformer
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,  # of weights, computation and tokens
    ) -> None:
        _check_tower(tower)
        shape = TeacherShape(width=tower.output_dim, grid=tower.grid_size[0])
        super().__init__(
            shape, image_size=tower.image_size[0], mean=tower.image_mean, std=tower.image_std, device=device
        )
        self.tower = tower.eval().requires_grad_(False).to(device=device, dtype=dtype)
        self.dtype = dtype

    def tokens(self, images: Tensor) -> Tensor:
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
    architecture: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> OpenClipTeacher:
    """Return the teacher in a local open_clip checkpoint; nothing is ever downloaded.

    `checkpoint`: a folder with `open_clip_config.json` and weights (as `train_small_clip` and open_clip's hub format
    write it), or a file of weights, of which `architecture` says what they are (an open_clip model name, `ViT-H-14`).
    Raises `ValueError` naming what is missing or does not fit.
    """
    import open_clip
    from safetensors import SafetensorError

    name, weights = _source(Path(checkpoint), architecture)
    try:
        model = open_clip.create_model(name, pretrained=weights, require_pretrained=True)
    except (RuntimeError, ValueError, KeyError, TypeError, OSError, SafetensorError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"teacher checkpoint {checkpoint} does not load as open_clip's {name}: {reason}") from error
    return OpenClipTeacher(model.visual, device=device, dtype=dtype)


def open_clip_shape(checkpoint: Path | str, architecture: str | None) -> TeacherShape:
    """Return the shape of the tokens of `from_open_clip(checkpoint, architecture=...)` without reading weights."""
    import open_clip

    name, weights = _source(Path(checkpoint), architecture)
    if weights is None:
        path = Path(checkpoint) / CONFIG_NAME
        try:
            model = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
        except (json.JSONDecodeError, KeyError) as error:
            raise ValueError(f"{path} is no open_clip configuration ({error!r}); fetch the folder again") from error
    else:
        model = open_clip.get_model_config(name)
    vision = model["vision_cfg"]
    sizes = (model["embed_dim"], vision.get("image_size", 224), vision.get("patch_size", 16))
    if "timm_model_name" in vision or not all(isinstance(size, int) for size in (*sizes, vision.get("layers", 12))):
        raise ValueError(
            f"teacher checkpoint {checkpoint} ({name}) is no open_clip vision transformer of square images"
        )
    width, image_size, patch_size = sizes
    return TeacherShape(width, image_size // patch_size)


def _source(path: Path, architecture: str | None) -> tuple[str, str | None]:
    """Return open_clip's model name and the file of weights, None for a folder that holds both."""
    import open_clip

    if path.is_dir():
        if not (path / CONFIG_NAME).is_file():
            raise ValueError(f"teacher checkpoint {path} has no {CONFIG_NAME}; name a folder that has, or a file")
        return f"local-dir:{path}", None
    if not path.is_file():
        raise ValueError(f"teacher checkpoint {path} does not exist; name an open_clip folder or file of weights")
    if architecture is None:
        raise ValueError(
            f"teacher checkpoint {path} is a bare file of weights; say whose with teacher.architecture=, e.g. ViT-H-14"
        )
    known = open_clip.list_models()
    if architecture not in known:
        hint = suggestion(architecture, known)
        raise ValueError(f"open_clip knows no architecture {architecture!r}{hint}; see open_clip.list_models()")
    return architecture, str(path)
