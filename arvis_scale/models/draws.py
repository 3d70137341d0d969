"""Random draws that depend on the sample alone.

Stochastic depth, prefix lengths and segment orders come from a counter-based hash of a per-sample seed, not from a
generator's state: the same sample draws the same numbers in any micro-batch, on any process, on CPU and GPU, and again
when activations are recomputed. The hash is the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), applied to
seed, stream and counter in turn.
"""

from __future__ import annotations

import torch
from torch import Tensor

# What is drawn. Layer l of a stochastic-depth stream draws from stream + l.
PREFIX_LENGTH_STREAM = 1
SEGMENT_ORDER_STREAM = 2
PATCH_ORDER_STREAM = 3
BLOCK_ORDER_STREAM = 4
STEP_STREAM = 5
ENCODER_DEPTH_STREAM = 1000

# float32 holds 24 bits exactly, so that no draw rounds up to 1.
_NUM_BITS = 24


def _signed(value: int) -> int:
    """Return the 64-bit pattern of `value` as the signed integer that int64 tensors hold."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN_GAMMA = _signed(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = _signed(0x94D049BB133111EB)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    # `>>` on int64 copies the sign bit in; the mask makes the shift logical.
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    """Return the SplitMix64 finaliser of every int64 of `value`; products wrap modulo 2^64."""
    value = (value ^ _shift_right(value, 30)) * _MULTIPLIER_1
    value = (value ^ _shift_right(value, 27)) * _MULTIPLIER_2
    return value ^ _shift_right(value, 31)


def uniform(sample_seeds: Tensor, stream: int, num: int) -> Tensor:
    """Return `num` draws per sample, uniform on [0, 1), float32, `B x num`, on the device of `sample_seeds`.

    `sample_seeds`: int64, `B`. Different streams of one sample, and one stream of different samples, are independent.
    """
    assert sample_seeds.dtype == torch.int64 and sample_seeds.dim() == 1
    samples = _mix(sample_seeds + _GOLDEN_GAMMA)  # B
    streams = _mix(samples + _signed(stream * _GOLDEN_GAMMA))  # B
    counters = torch.arange(1, num + 1, device=sample_seeds.device)  # num
    bits = _shift_right(_mix(streams[:, None] + counters * _GOLDEN_GAMMA), 64 - _NUM_BITS)  # B x num
    return bits.to(torch.float32) / (1 << _NUM_BITS)


def keep_scale(sample_seeds: Tensor, stream: int, rate: float, num: int) -> Tensor:
    """Return the factors of `num` branches that are dropped with probability `rate`: 0 or 1 / (1 - rate), `B x num`."""
    return (uniform(sample_seeds, stream, num) >= rate).to(torch.float32) / (1 - rate)


def prefix_lengths(sample_seeds: Tensor, num_tokens: int) -> Tensor:
    """Return one length per sample, uniform on 1 .. num_tokens - 1, int64, `B`."""
    draw = uniform(sample_seeds, PREFIX_LENGTH_STREAM, 1)[:, 0]
    return 1 + (draw * (num_tokens - 1)).to(torch.int64)


def segment_orders(sample_seeds: Tensor, num_segments: int) -> Tensor:
    """Return one random permutation of the segments per sample, int64, `B x num_segments`."""
    return uniform(sample_seeds, SEGMENT_ORDER_STREAM, num_segments).argsort(dim=1, stable=True)


def block_orders(num_orders: int, num_blocks: int) -> Tensor:
    """Return a fixed set of permutations of the blocks, int64, `num_orders x num_blocks`; the first is raster order.

    Their first blocks all differ, so that no two share a prefix of any length (arXiv 2411.15648). Asks for
    `num_orders <= num_blocks`.
    """
    raster = torch.arange(num_blocks)
    keys = uniform(
        torch.arange(num_orders + 1), BLOCK_ORDER_STREAM, num_blocks
    )  # one row per order, one for the firsts
    firsts = torch.cat([raster[:1], 1 + keys[-1, 1:].argsort(stable=True)])
    orders = keys[:-1].scatter(1, firsts[:num_orders, None], -1.0).argsort(dim=1, stable=True)
    return torch.cat([raster[None], orders[1:]])


def choice_of_step(step: Tensor, num_choices: int) -> Tensor:
    """Return the draw of optimizer step `step` (int64, no dimensions), uniform on 0 .. num_choices - 1, int64, `1`.

    All processes and micro batches of a step draw the same.
    """
    return (uniform(step.reshape(1), STEP_STREAM, 1)[0] * num_choices).to(torch.int64)


def patch_orders(sample_seeds: Tensor, num_patches: int) -> Tensor:
    """Return one random permutation of the patches per sample, int64, `B x num_patches`."""
    return uniform(sample_seeds, PATCH_ORDER_STREAM, num_patches).argsort(dim=1, stable=True)
