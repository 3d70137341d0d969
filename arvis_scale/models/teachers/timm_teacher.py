"""timm's vision transformers (DINO, supervised and others) as teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arvis_scale.config import suggestion
from arvis_scale.models.teachers.teacher import Teacher, TeacherShape, with_mean_token
from arvis_scale.models.weight_files import check_fits, read_weights

# How timm names an architecture that the `config.json` of a folder describes.
TIMM_FOLDER = "local-dir:"


class TimmTeacher(Teacher):
    """A timm VisionTransformer in inference mode: its class token and patch tokens after the final norm.

    Register tokens are left out. A transformer without a class token gives the mean over its patch tokens instead.
    """

    def __init__(
        self,
        tower: Any,  # timm VisionTransformer
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,  # of weights, computation and tokens
    ) -> None:
        statistics = tower.pretrained_cfg
        super().__init__(
            _shape(tower),
            image_size=tower.patch_embed.img_size[0],
            mean=statistics["mean"],
            std=statistics["std"],
            device=device,
        )
        self.tower = tower.eval().requires_grad_(False).to(device=device, dtype=dtype)
        self.dtype = dtype

    def tokens(self, images: Tensor) -> Tensor:
        # A tower that pools first has its final norm in `fc_norm`; the other of the two norms is the identity.
        tokens = self.tower.fc_norm(self.tower.forward_features(images.to(self.dtype)))
        patch_tokens = tokens[:, self.tower.num_prefix_tokens :]
        if not self.tower.has_class_token:
            return with_mean_token(patch_tokens)
        return torch.cat([tokens[:, :1], patch_tokens], dim=1)


def from_timm(
    checkpoint: Path | str,
    *,
    architecture: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TimmTeacher:
    """Return the teacher in a local file of timm weights of `architecture` (`vit_base_patch16_224.dino`).

    Nothing is downloaded. Raises `ValueError` for an unknown architecture, one that is no VisionTransformer, and for
    weights that do not fit it tensor by tensor; a classifier in the file is left out.
    """
    from timm.models.vision_transformer import checkpoint_filter_fn

    tower = _create(architecture)
    weights = checkpoint_filter_fn(read_weights(checkpoint), tower)
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(("head.", "head_dist."))}
    check_fits(weights, tower.state_dict(), source=str(checkpoint), model=f"timm's {architecture}")
    tower.load_state_dict(weights)
    return TimmTeacher(tower, device=device, dtype=dtype)


def timm_shape(architecture: str) -> TeacherShape:
    """Return the shape of the tokens of `architecture` without making its weights."""
    with torch.device("meta"):
        return _shape(_create(architecture))


def _create(architecture: str) -> Any:
    import timm
    from timm.models import is_model, list_models
    from timm.models.vision_transformer import VisionTransformer

    name = architecture.partition(".")[0]
    if not architecture.startswith(TIMM_FOLDER) and not is_model(name):
        raise ValueError(f"timm knows no architecture {architecture!r}{suggestion(name, list_models())}")
    try:
        tower = timm.create_model(architecture, pretrained=False, num_classes=0)
    except RuntimeError as error:
        raise ValueError(f"timm cannot make {architecture!r}: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(tower, VisionTransformer):
        raise ValueError(f"timm's {architecture} is a {type(tower).__name__}; a teacher must be a VisionTransformer")
    return tower


def _shape(tower: Any) -> TeacherShape:
    grid = tower.patch_embed.grid_size
    if grid[0] != grid[1]:
        raise ValueError(f"the teacher's grid is {grid}, not square")
    return TeacherShape(tower.embed_dim, grid[0])
