"""Encoder sizes by name.

Ti to H are the sizes of the ViT papers, g that of arXiv 2106.04560 with the MLP ratio 48/11, `0.6B` to `7B` the trunks
of AIM (arXiv 2401.08541, table 2), `igpt-S` to `igpt-XL` those of iGPT (Chen et al., ICML 2020; the heads of XL are
not published, 24 is ours). The sizes below Ti are ours: studies that a laptop trains in minutes.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderSize:
    """Shape of a vision transformer: channels, layers, attention heads, hidden channels of its MLPs."""

    width: int
    depth: int
    num_heads: int
    mlp_hidden: int


PRESETS: dict[str, EncoderSize] = {
    "pico": EncoderSize(width=16, depth=2, num_heads=2, mlp_hidden=64),  # 0.007M parameters
    "nano": EncoderSize(width=32, depth=2, num_heads=2, mlp_hidden=128),  # 0.03M
    "micro": EncoderSize(width=64, depth=4, num_heads=4, mlp_hidden=256),  # 0.2M
    "mini": EncoderSize(width=128, depth=6, num_heads=4, mlp_hidden=512),  # 1.2M
    "midi": EncoderSize(width=192, depth=6, num_heads=6, mlp_hidden=768),  # 2.7M
    "Ti": EncoderSize(width=192, depth=12, num_heads=3, mlp_hidden=768),
    "S": EncoderSize(width=384, depth=12, num_heads=6, mlp_hidden=1536),
    "B": EncoderSize(width=768, depth=12, num_heads=12, mlp_hidden=3072),
    "L": EncoderSize(width=1024, depth=24, num_heads=16, mlp_hidden=4096),
    "H": EncoderSize(width=1280, depth=32, num_heads=16, mlp_hidden=5120),
    "g": EncoderSize(width=1408, depth=40, num_heads=16, mlp_hidden=6144),
    "0.6B": EncoderSize(width=1536, depth=24, num_heads=12, mlp_hidden=6144),
    "1B": EncoderSize(width=2048, depth=24, num_heads=16, mlp_hidden=8192),
    "3B": EncoderSize(width=3072, depth=24, num_heads=24, mlp_hidden=12288),
    "7B": EncoderSize(width=4096, depth=32, num_heads=32, mlp_hidden=16384),
    "igpt-S": EncoderSize(width=512, depth=24, num_heads=8, mlp_hidden=2048),
    "igpt-M": EncoderSize(width=1024, depth=36, num_heads=8, mlp_hidden=4096),
    "igpt-L": EncoderSize(width=1536, depth=48, num_heads=16, mlp_hidden=6144),
    "igpt-XL": EncoderSize(width=3072, depth=60, num_heads=24, mlp_hidden=12288),
}


def encoder_size(preset: str) -> EncoderSize:
    """Return the size called `preset`; `ValueError` names the nearest one when there is none."""
    if preset not in PRESETS:
        # Case is what people get wrong most, and difflib counts it as a different letter.
        lowered = {name.lower(): name for name in PRESETS}
        near = difflib.get_close_matches(preset.lower(), lowered, n=1, cutoff=0.5)
        hint = f"; did you mean {lowered[near[0]]!r}?" if near else ""
        raise ValueError(f"preset {preset!r} is not known{hint}; one of {', '.join(PRESETS)}")
    return PRESETS[preset]
