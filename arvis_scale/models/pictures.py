"""What a model may look at and what it predicts, as images: for TensorBoard and for the documentation.

A picture is `3 x H x W`, float32 on the CPU, black 0 and white 1. Small images are enlarged by a whole factor, so that
every pixel of theirs stays a square.
"""

from __future__ import annotations

from typing import NamedTuple

import matplotlib
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.utils import make_grid

from arvis_scale.models.aim import Aim
from arvis_scale.models.digpt import Digpt, answered, resize_segments
from arvis_scale.models.encoder import Encoder, take_tokens
from arvis_scale.models.igpt import Igpt
from arvis_scale.models.images import denormalize
from arvis_scale.models.mae import Mae
from arvis_scale.models.masks import prefix_mask
from arvis_scale.models.objective import Objective
from arvis_scale.models.xtra import Xtra

# A tile of a picture is at least this wide, and an attention mask at least that.
_TILE_PIXELS = 64
_MASK_PIXELS = 256
# Longer sequences show every second, third, ... token.
_MAX_MASK_PIXELS = 1024
# iGPT samples per picture: every pixel of theirs is a pass through the model.
_NUM_SAMPLES = 4
_COLORMAP = "viridis"
# Colors of an attention mask, which stand out from a white page and from a black one.
MAY_ATTEND = (0.17, 0.37, 0.54)  # blue
MAY_NOT_ATTEND = (0.85, 0.85, 0.85)
_NOT_PREDICTED = 0.25  # gray


class AttentionMask(NamedTuple):
    """Which tokens of an encoder see which."""

    allowed: Tensor  # n x n, bool: the row may attend to the column; tokens in the order of computation
    patches: Tensor  # raster number of the patch at each place, the class token's left out: int64, n or n - 1
    num_patches: int  # of the whole image

    def in_raster_order(self) -> Tensor:
        """Return the mask over all patches of the image and, last, the class token; others attend to nothing."""
        num_extra = len(self.allowed) - len(self.patches)
        place = torch.cat([self.patches, torch.arange(self.num_patches, self.num_patches + num_extra)])
        raster = torch.zeros(self.num_patches + num_extra, self.num_patches + num_extra, dtype=torch.bool)
        raster[place[:, None], place[None, :]] = self.allowed
        return raster


def attention_mask(objective: Objective, sample_seed: int = 0) -> AttentionMask:
    """Return the mask of the objective's encoder in pretraining; what is drawn per image is that of `sample_seed`."""
    batch = {"sample_seeds": torch.tensor([sample_seed])}
    if isinstance(objective, Igpt):
        num_pixels = objective.encoder.num_pixels
        causal = torch.ones(num_pixels, num_pixels, dtype=torch.bool).tril()
        return AttentionMask(causal, torch.arange(num_pixels), num_pixels)
    assert isinstance(objective.encoder, Encoder)
    num_patches = objective.encoder.num_patches
    if isinstance(objective, Xtra):
        return AttentionMask(objective.encoder.block_mask.cpu(), objective.encoder.block_order.cpu(), num_patches)
    if isinstance(objective, Aim):
        allowed = prefix_mask(objective.prefix_length(batch), num_patches)[0, 0]
        return AttentionMask(allowed, torch.arange(num_patches), num_patches)
    if isinstance(objective, Digpt):
        segments = objective.segment_order(batch)[0, :-1]
        return AttentionMask(objective.mask.cpu(), objective.student_segments.cpu()[segments].flatten(), num_patches)
    assert isinstance(objective, Mae)
    patches = objective.visible_patches(batch)[0]
    num_tokens = len(patches) + 1
    return AttentionMask(torch.ones(num_tokens, num_tokens, dtype=torch.bool), patches, num_patches)


def mask_pictures(objective: Objective) -> dict[str, Tensor]:
    """Return pictures of the encoder's attention mask by name; blue: the row may attend to the column."""
    mask = attention_mask(objective)
    masks = {"attention_mask/computed": mask.allowed, "attention_mask/raster": mask.in_raster_order()}
    if torch.equal(*masks.values()):
        del masks["attention_mask/computed"]
    pictures = {}
    for name, allowed in masks.items():
        thinned = -(-len(allowed) // _MAX_MASK_PIXELS)
        colors = torch.tensor([MAY_NOT_ATTEND, MAY_ATTEND])[allowed[::thinned, ::thinned].long()]  # n x n x 3
        pictures[name] = enlarged(colors.permute(2, 0, 1), _MASK_PIXELS)
    return pictures


def prediction_pictures(objective: Objective, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return pictures of what the objective predicts for the images of `batch`, by name.

    Where parameters are spread over processes (ZeRO-3), all of them must call it.
    """
    pictures = {}
    reconstruction = objective.reconstruct(batch)
    if reconstruction:
        pictures["reconstruction"] = rows_of([visible(reconstruction[name]) for name in ("target", "prediction")])
    if isinstance(objective, Digpt):
        images = visible(batch["images"])
        maps = [heat(cosines, images.shape[-1]) for cosines in cosine_maps(objective, batch).values()]
        pictures["cosine_similarity"] = rows_of([images, *maps])
    if isinstance(objective, Igpt):
        generator = torch.Generator(batch["images"].device).manual_seed(0)
        pictures["samples"] = rows_of([visible(objective.sample(_NUM_SAMPLES, generator))])
    return pictures


@torch.no_grad()
def cosine_maps(objective: Digpt, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the cosine between predicted and teacher tokens by decoder, `B x gt x gt` on the teacher's grid.

    NaN where a decoder answers nothing: the generative one for the first segment, the discriminative one for the last.
    """
    order = objective.segment_order(batch)  # B x S
    targets = batch["teacher_tokens"][:, 1:].float()  # B x gt*gt x C
    grid = round(targets.shape[1] ** 0.5)
    maps = {}
    for name, prediction in objective.predict_tokens(batch["images"], order, batch.get("sample_seeds")).items():
        index = objective.teacher_segments[answered(name, order)].flatten(1)  # B x n
        tokens = resize_segments(prediction[:, :-1].float(), objective.segment_side, objective.teacher_segment_side)
        cosine = F.cosine_similarity(tokens, take_tokens(targets, index), dim=-1)  # B x n
        nothing = torch.full(targets.shape[:2], float("nan"), device=cosine.device)
        maps[name] = nothing.scatter(1, index, cosine).unflatten(1, (grid, grid))
    return maps


def visible(images: Tensor) -> Tensor:
    """Return ImageNet-normalized images, `B x 3 x H x W`, as they look: 0 .. 1 on the CPU."""
    return denormalize(images).clamp(0, 1).float().cpu()


def heat(values: Tensor, side: int) -> Tensor:
    """Return maps of values, `B x g x g`, as colors from 0 (dark) to 1 (bright), gray where NaN: `B x 3 x s x s`."""
    values = values.float().cpu()
    colors = torch.from_numpy(matplotlib.colormaps[_COLORMAP](values.clamp(0, 1).nan_to_num().numpy()))[..., :3]
    colors[values.isnan()] = _NOT_PREDICTED
    return F.interpolate(colors.float().permute(0, 3, 1, 2), size=(side, side), mode="nearest")


def enlarged(images: Tensor, min_side: int) -> Tensor:
    """Return `... x H x W` images enlarged by the least whole factor that makes them `min_side` wide."""
    factor = -(-min_side // images.shape[-1])
    return images.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def rows_of(rows: list[Tensor]) -> Tensor:
    """Return one picture with a row of tiles for each of `rows`, `B x 3 x H x W`."""
    tiles = enlarged(torch.cat(rows), _TILE_PIXELS)
    return make_grid(tiles, nrow=len(rows[0]), padding=2, pad_value=1.0)
