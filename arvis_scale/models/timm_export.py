"""Our encoders as timm VisionTransformers, whose parameter names they share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from arvis_scale.models.encoder import Backbone, Encoder
from arvis_scale.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from arvis_scale.models.vit import Block
from arvis_scale.models.xtra import BlockCausalEncoder

# Any of timm's plain vision transformers would do: every size is given beside it.
ARCHITECTURE = "vit_base_patch16_224"


def check_exportable(encoder: Backbone) -> Encoder:
    """Return `encoder`; `ValueError` when timm has no model that computes what it computes."""
    if not isinstance(encoder, Encoder):
        raise ValueError(
            f"timm has no model that computes a {type(encoder).__name__}; export with --format safetensors"
        )
    return encoder


def timm_config(encoder: Encoder) -> dict[str, Any]:
    """Return the config.json from which `timm.create_model("local-dir:FOLDER", pretrained=True)` builds the encoder."""
    block = encoder.blocks[0]
    assert isinstance(block, Block)
    has_class_token = encoder.cls_token is not None
    side = encoder.patch_embed.image_size
    arguments: dict[str, Any] = {
        "img_size": side,
        "patch_size": encoder.patch_embed.patch_size,
        "embed_dim": encoder.width,
        "depth": encoder.depth,
        "num_heads": block.attn.num_heads,
        "mlp_ratio": _mlp_ratio(block.mlp.fc1.out_features, encoder.width),
        "qkv_bias": block.attn.qkv.bias is not None,
        "proj_bias": block.attn.proj.bias is not None,
        "class_token": has_class_token,
        # The class token has no position.
        "no_embed_class": True,
        "final_norm": not isinstance(encoder.norm, nn.Identity),
        "global_pool": "avg",
        # The norm comes before pooling.
        "fc_norm": False,
    }
    if not isinstance(encoder.patch_norm, nn.Identity):
        arguments["embed_norm_layer"] = "layernorm"
    return {
        "architecture": ARCHITECTURE,
        "num_classes": 0,
        "num_features": encoder.width,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [3, side, side],
            "fixed_input_size": True,
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "num_classes": 0,
        },
    }


def _mlp_ratio(hidden: int, width: int) -> float:
    """Return the ratio from which timm, which rounds down, gets `hidden` channels."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def timm_state(encoder: Encoder) -> dict[str, Tensor]:
    """Return the encoder's weights under timm's names; positions are weights there, learned or not."""
    weights = {name.replace("patch_norm.", "patch_embed.norm."): value for name, value in encoder.state_dict().items()}
    return {**weights, "pos_embed": encoder.pos_embed.detach()}


def transfer_mask(encoder: Encoder) -> Tensor | None:
    """Return the mask that stays on at transfer, `N x N` in raster order, true: may attend; None: full attention.

    timm keeps no mask of its own: it is passed as `forward_features(images, attn_mask=mask)`.
    """
    if not isinstance(encoder, BlockCausalEncoder):
        return None
    place = encoder.block_order.argsort()  # of each patch in block order
    return encoder.block_mask[place][:, place]


def features(encoder: Encoder, images: Tensor) -> Tensor:
    """Return what timm's `forward_features` gives for patches: the last layer after the final norm, `B x N x D`."""
    [tokens] = encoder.layer_outputs(images, [encoder.depth])
    return encoder.norm(tokens)


@torch.no_grad()
def check_reproduced(encoder: Encoder, model: Any) -> float:
    """Return how far the timm `model`'s features are from the encoder's, relative to the largest; on noise images.

    Raises `ValueError` when they are more than 1e-4 apart, which is no rounding.
    """
    side = encoder.patch_embed.image_size
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    expected = features(encoder.eval(), images)
    got = model.eval().forward_features(images, attn_mask=transfer_mask(encoder))[:, model.num_prefix_tokens :]
    difference = ((got - expected).abs().max() / expected.abs().max()).item()
    if not difference < 1e-4:
        raise ValueError(
            f"timm's features differ from the encoder's by {difference:.1e}; this timm cannot express it, "
            "export with --format safetensors"
        )
    return difference
