"""The options of each objective, as plain dataclasses that a typed configuration embeds.

Nothing here imports torch: configurations are read and checked on machines without it. Where a field is null, the
size is derived from the encoder's by the rule beside it; every rule gives the published sizes at the published presets.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class XtraOptions:
    """XTRA (arXiv 2411.15648): predict the next block of pixels from the blocks before it."""

    # Side of a block, in patches; it divides the grid. 1 is plain raster order.
    block_side: int = 4
    # Hidden width of the projection between encoder and predictor; null: 4 x encoder width, from B up at least 4096.
    projection_hidden: int | None = None
    # Width of the predictor; null: the encoder's up to B (768), half of it above.
    predictor_width: int | None = None
    # Layers of the predictor; null: two thirds of the encoder's, at most 8.
    predictor_depth: int | None = None
    # Attention heads of the predictor; null: half of the encoder's.
    predictor_heads: int | None = None
    # Hidden width of the pixel head; null: half of block_side^2 x encoder width, at most the pixel values of a block.
    head_hidden: int | None = None
    # Probability with which stochastic depth skips a branch of the encoder's last layer; linear from 0 over depth.
    drop_path: float = 0.2
    # Heads: the first predicts the next block, the second the one after it, ...; their losses are averaged.
    blocks_ahead: int = 1
    # What is averaged over the pixels of a block: mse (squared errors) or l1 (absolute ones).
    loss: str = "mse"
    # Fixed orders of the blocks, of which every step draws one, at most as many as blocks; 1 is raster order alone.
    block_orders: int = 1


@dataclass
class AimOptions:
    """AIM (arXiv 2401.08541): predict the next patch of pixels in raster order, with prefix attention."""

    # Residual MLP blocks of the pixel head; null: half of the trunk's layers, at most 12.
    head_depth: int | None = None
    # Width of the pixel head; null: 4/3 of the trunk's (to the nearest multiple of 8), at most 2048.
    head_width: int | None = None
    # Hidden width of a head block's MLP, as a multiple of `head_width`.
    head_expansion: int = 4


@dataclass
class DigptOptions:
    """D-iGPT (arXiv 2312.02147): predict the semantic tokens of the next and of the visible segments."""

    # Side of a segment, in patches; it divides the grid.
    segment_side: int = 7
    # Decoders that are trained: generative (next segment), discriminative (visible segments), or both.
    decoders: list[str] = field(default_factory=lambda: ["generative", "discriminative"])
    # Layers of each decoder.
    decoder_depth: int = 2
    # Attention heads of each decoder; null: one for every 24 channels of the encoder, at most 32.
    decoder_heads: int | None = None
    # Width of each decoder; null: 32 per decoder head (1024 from B up).
    decoder_width: int | None = None


@dataclass
class IgptOptions:
    """iGPT (Chen et al., ICML 2020): predict the color of the next pixel of a small image; it reads no `patch_size`."""

    # Side of the square grid of pixels that the image is reduced to; at most image_size. The sequence has its square.
    resolution: int = 32
    # Colors of the palette, found by k-means over pixels of the training images; at most 512.
    palette_size: int = 512


@dataclass
class MaeOptions:
    """MAE (arXiv 2111.06377): predict the pixels of masked patches from the visible ones."""

    # Fraction of the patches of an image that is masked.
    mask_ratio: float = 0.75
    # Layers of the decoder; null: two thirds of the encoder's, at most 8.
    decoder_depth: int | None = None
    # Attention heads of the decoder; null: one for every 48 channels of the encoder, at most 16.
    decoder_heads: int | None = None
    # Width of the decoder; null: 32 per decoder head (512 from B up).
    decoder_width: int | None = None
