"""How the teacher's tokens of one view are stored: fp32, fp16, or int8 with scales; and how far that is from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TOKEN_PRECISIONS = ("fp16", "int8", "fp32")
_LARGEST_INT8 = 127


def record_type(precision: str, num_tokens: int, width: int) -> np.dtype:
    """Return the fields of one view of `num_tokens` tokens of `width` channels, in the order of the file."""
    shape = (num_tokens, width)
    if precision == "int8":
        scales = [("channel_scales", "<f4", (width,)), ("token_scales", "<f4", (num_tokens,))]
        return np.dtype([*scales, ("tokens", "i1", shape)])
    return np.dtype([("tokens", {"fp16": "<f2", "fp32": "<f4"}[precision], shape)])


def encode(tokens: Tensor, precision: str) -> dict[str, Tensor]:
    """Return the fields of `record_type` for tokens of B views, `B x T x C`, on their device.

    int8: each token is divided by its root mean square, then each channel of a view is spread over -127 .. 127. So
    neither a token nor a channel that is much larger than the others, which vision transformers have both, costs the
    others their bits. Raises `ValueError` for tokens that the precision cannot hold.
    """
    if not torch.isfinite(tokens).all():
        raise ValueError("the teacher gives tokens that are not finite; check its weights and teacher.precision")
    tokens = tokens.float()
    if precision == "fp32":
        return {"tokens": tokens}
    if precision == "fp16":
        largest = tokens.abs().max().item()
        if largest > torch.finfo(torch.float16).max:
            raise ValueError(f"the teacher gives values up to {largest:.3g}, too large for fp16; take --precision int8")
        return {"tokens": tokens.half()}
    tiny = torch.finfo(torch.float32).tiny  # all-zero tokens and channels have no scale
    token_scales = tokens.square().mean(dim=2).sqrt().clamp_min(tiny)  # B x T
    even = tokens / token_scales[:, :, None]
    channel_scales = (even.abs().amax(dim=1) / _LARGEST_INT8).clamp_min(tiny)  # B x C
    whole = (even / channel_scales[:, None, :]).round().to(torch.int8)
    return {"channel_scales": channel_scales, "token_scales": token_scales, "tokens": whole}


def decode(fields: Mapping[str, Tensor]) -> Tensor:
    """Return the tokens that the fields of `encode` hold, `B x T x C` float32, on their device."""
    tokens = fields["tokens"].float()
    if "token_scales" in fields:
        tokens = tokens * fields["token_scales"][:, :, None] * fields["channel_scales"][:, None, :]
    return tokens


@dataclass(frozen=True)
class DirectionError:
    """Distances between the unit vectors along stored tokens and along the teacher's own, mean and largest.

    A loss of `2 - 2 cos` changes by at most twice that distance, whatever is predicted.
    """

    num_tokens: int = 0
    mean: float = 0.0
    largest: float = 0.0

    @classmethod
    def between(cls, tokens: Tensor, stored: Tensor) -> DirectionError:
        """Measure `stored` against the teacher's own `tokens`, `B x T x C` each."""
        # In double precision: the difference of two float32 unit vectors that are equal is 1e-7, not 0.
        own, other = (F.normalize(vectors.double(), dim=2) for vectors in (tokens, stored))
        distances = (own - other).norm(dim=2)
        return cls(distances.numel(), distances.mean().item(), distances.max().item())

    def __add__(self, other: DirectionError) -> DirectionError:
        """Return the error over both sets of tokens."""
        num_tokens = self.num_tokens + other.num_tokens
        total = self.mean * self.num_tokens + other.mean * other.num_tokens
        return DirectionError(num_tokens, total / max(num_tokens, 1), max(self.largest, other.largest))
