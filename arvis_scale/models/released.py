"""The names that the authors' released implementations give their parameters, mapped to ours.

XTRA: groups `enc`, `proj`, `predictor`, `aim_proj.0`, `aim_proj.1`, ... D-iGPT: the released code hands the features
made with `kd_enc_*` to the generative decoder (`ar_*`) and those of `ar_enc_*` to the discriminative one (`kd_*`); ours
are named by the decoder that uses them, so the crossing is undone here. Its four `*_enc_norm` of a decoder are one
module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from arvis_scale.models.positions import sincos_positions
from arvis_scale.models.weight_files import check_fits

# Fixed tensors that the released code stores and ours computes.
_DIGPT_FIXED = ("pos_embed", "decoder_pos_embed", "mask")

_XTRA_RULES = (
    (r"enc\.(.*)", r"encoder.\1"),
    (r"predictor\.(.*)", r"predictor.\1"),
    (r"proj\.mlp\.0\.(.*)", r"projection.fc1.\1"),
    (r"proj\.mlp\.2\.(.*)", r"projection.fc2.\1"),
    (r"aim_proj\.(\d+)\.mlp\.0\.(.*)", r"heads.\1.fc1.\2"),
    (r"aim_proj\.(\d+)\.mlp\.2\.(.*)", r"heads.\1.fc2.\2"),
)


def _digpt_decoder_rules(decoder: str, own: str, features: str) -> tuple[tuple[str, str], ...]:
    ours = f"decoders.{decoder}"
    block = rf"{own}_blocks\.(\d+)"
    return (
        (rf"{features}_enc_norm\.\d\.(.*)", rf"{ours}.tap_norm.\1"),
        (rf"{features}_enc2dec\.(.*)", rf"{ours}.tap_proj.\1"),
        (rf"{own}_token", rf"{ours}.query_token"),
        (rf"{own}_norm\.(.*)", rf"{ours}.norm.\1"),
        (rf"{own}_pred\.(.*)", rf"{ours}.head.\1"),
        (rf"{block}\.attn1\.(.*)", rf"{ours}.blocks.\1.self_attn.\2"),
        (rf"{block}\.attn2\.(.*)", rf"{ours}.blocks.\1.cross_attn.\2"),
        (rf"{block}\.norm2_1\.(.*)", rf"{ours}.blocks.\1.norm_query.\2"),
        (rf"{block}\.norm2_2\.(.*)", rf"{ours}.blocks.\1.norm_features.\2"),
        (rf"{block}\.((?:norm1|norm2|mlp)\..*)", rf"{ours}.blocks.\1.\2"),
    )


_DIGPT_RULES = (
    (r"((?:patch_embed|blocks)\..*)", r"encoder.\1"),
    (r"cls_token", r"encoder.cls_token"),
    *_digpt_decoder_rules("generative", own="ar", features="kd"),
    *_digpt_decoder_rules("discriminative", own="kd", features="ar"),
)

_RULES = {"xtra": _XTRA_RULES, "digpt": _DIGPT_RULES}


def our_names(objective: str, released_names: Iterable[str]) -> dict[str, str]:
    """Return our parameter name for each released one of `objective` (xtra | digpt); fixed tensors are left out.

    Several released names may share one of ours. Raises `ValueError` for a name that the implementation does not have.
    """
    fixed = _DIGPT_FIXED if objective == "digpt" else ()
    return {name: _our_name(objective, name) for name in released_names if name not in fixed}


def _our_name(objective: str, name: str) -> str:
    for pattern, replacement in _RULES[objective]:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    raise ValueError(f"{name!r} is no parameter of the released {objective}; is this a checkpoint of another model?")


def from_released(objective: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the released weights `state` of `objective` (xtra | digpt) under our names, for `load_state_dict`.

    Raises `ValueError` for an unknown name, and when tensors that must be one module's copies differ.
    """
    converted: dict[str, Tensor] = {}
    for name, ours in our_names(objective, state).items():
        if ours in converted and not torch.equal(converted[ours], state[name]):
            raise ValueError(f"{name!r} differs from the other copies of {ours!r}, with which it should be shared")
        converted[ours] = state[name]
    return converted


def weights_of(model: nn.Module, objective: str, state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Return the released weights `state` of `source`, fp32, as `model` takes them in `load_state_dict`.

    `model`: the objective, which may be on the meta device. Learned positions of another grid are resampled (bicubic,
    antialiased); fixed ones are computed by our models for any grid. Raises `ValueError` naming the first tensor that
    does not fit, and when positions that ought to be fixed are not.
    """
    _check_fixed_positions(state, source)
    expected = model.state_dict()
    weights = {name: tensor.float() for name, tensor in from_released(objective, state).items()}
    for name in weights.keys() & expected.keys():
        if name.endswith("pos_embed"):
            side = math.isqrt(expected[name].shape[1])
            weights[name] = resample_abs_pos_embed(weights[name], [side, side], num_prefix_tokens=0)
    check_fits(weights, expected, source=source, model=f"this {objective}")
    return weights


def _check_fixed_positions(state: Mapping[str, Tensor], source: str) -> None:
    for name in ("pos_embed", "decoder_pos_embed"):
        if name not in state:
            continue
        positions = state[name].float()  # 1 x (1 + N) x D, the class token's row first
        expected = sincos_positions(positions.shape[2], math.isqrt(positions.shape[1] - 1))
        if positions[0, 1:].shape != expected.shape or not torch.allclose(positions[0, 1:], expected, atol=1e-2):
            raise ValueError(f"{source}: {name} is not the fixed sine-cosine table of D-iGPT; is this another model?")
