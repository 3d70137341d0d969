"""The names that the authors' released implementations give their parameters, mapped to ours.

XTRA: groups `enc`, `proj`, `predictor`, `aim_proj.0`. D-iGPT: the released code hands the features made with `kd_enc_*`
to the generative decoder (`ar_*`) and those of `ar_enc_*` to the discriminative one (`kd_*`); ours are named by the
decoder that uses them, so the crossing is undone here. Its four `*_enc_norm` of a decoder are one module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

# Fixed tensors that the released code stores and ours computes.
_DIGPT_FIXED = ("pos_embed", "decoder_pos_embed", "mask")

_XTRA_RULES = (
    (r"enc\.(.*)", r"encoder.\1"),
    (r"predictor\.(.*)", r"predictor.\1"),
    (r"proj\.mlp\.0\.(.*)", r"projection.fc1.\1"),
    (r"proj\.mlp\.2\.(.*)", r"projection.fc2.\1"),
    (r"aim_proj\.0\.mlp\.0\.(.*)", r"head.fc1.\1"),
    (r"aim_proj\.0\.mlp\.2\.(.*)", r"head.fc2.\1"),
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
