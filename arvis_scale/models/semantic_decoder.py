"""D-iGPT's decoder (arXiv 2312.02147): queries that read the encoder's features and give semantic tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arvis_scale.models.encoder import take_tokens
from arvis_scale.models.positions import sincos_positions
from arvis_scale.models.vit import Attention, Mlp, check_heads, layer_norm, merge_heads, split_heads


class CrossAttention(nn.Module):
    """Multi-head attention from queries to the encoder's features."""

    def __init__(
        self,
        *,
        width: int,  # channels of queries and features
        num_heads: int,  # divides width
    ) -> None:
        super().__init__()
        check_heads(width, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """`B x n x P`, `B x m x P` -> `B x n x P`; `mask`: bool, `n x m`."""
        k, v = (split_heads(part, self.num_heads) for part in self.kv(features).chunk(2, dim=-1))
        q = split_heads(self.q(queries), self.num_heads)
        return self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))


class DecoderBlock(nn.Module):
    """Pre-norm self-attention, cross-attention and MLP."""

    def __init__(
        self,
        *,
        width: int,  # channels
        num_heads: int,  # divides width
    ) -> None:
        super().__init__()
        self.norm1 = layer_norm(width)
        self.self_attn = Attention(width=width, num_heads=num_heads)
        self.norm_query = layer_norm(width)
        self.norm_features = layer_norm(width)
        self.cross_attn = CrossAttention(width=width, num_heads=num_heads)
        self.norm2 = layer_norm(width)
        self.mlp = Mlp(width=width, hidden=4 * width, output=width)

    def forward(self, x: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """`B x n x P`, `B x n x P` -> `B x n x P`; the same mask holds in both attentions."""
        x = x + self.self_attn(self.norm1(x), mask)
        x = x + self.cross_attn(self.norm_query(x), self.norm_features(features), mask)
        return x + self.mlp(self.norm2(x))


class SemanticDecoder(nn.Module):
    """Maps the tapped encoder layers to its own width and answers queries for the semantic tokens of patches."""

    pos_embed: Tensor  # 1 x N x P

    def __init__(
        self,
        *,
        encoder_width: int,  # channels of a tapped layer
        num_taps: int,  # tapped layers
        grid: int,  # patches per side of the image
        width: int,  # channels, a multiple of 4
        depth: int,  # layers
        num_heads: int,  # divides width
        token_width: int,  # channels of a semantic token
    ) -> None:
        super().__init__()
        self.width = width
        self.depth = depth
        # One norm for all taps, with torch's default eps 1e-5: both as in the released code.
        self.tap_norm = nn.LayerNorm(encoder_width)
        self.tap_proj = nn.Linear(num_taps * encoder_width, depth * width)
        self.query_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_embed", sincos_positions(width, grid)[None], persistent=False)
        self.blocks = nn.ModuleList(DecoderBlock(width=width, num_heads=num_heads) for _ in range(depth))
        self.norm = layer_norm(width)
        self.head = nn.Linear(width, token_width)

    def forward(self, taps: list[Tensor], query_index: Tensor, mask: Tensor) -> Tensor:
        """Return the semantic tokens of the queried patches, then of the class, `B x (n + 1) x C`.

        `taps`: encoder layers, `B x (n + 1) x D` each; `query_index`: raster numbers of the queried patches, `B x n`;
        `mask`: bool, `(n + 1) x (n + 1)`.
        """
        features = self.project(taps)
        x = self.queries(query_index)
        for layer, block in enumerate(self.blocks):
            x = block(x, features[..., layer], mask)
        return self.answer(x)

    def project(self, taps: list[Tensor]) -> Tensor:
        """Return the features that each layer reads, `B x (n + 1) x P x depth`."""
        features = self.tap_proj(torch.cat([self.tap_norm(tap) for tap in taps], dim=-1))
        # The released code interleaves: channel-major, layer-minor.
        return features.unflatten(-1, (-1, self.depth))

    def queries(self, query_index: Tensor) -> Tensor:
        """Return what the first layer reads, `B x (n + 1) x P`."""
        # Fixed positions are a buffer, which DeepSpeed leaves in float32 when it casts the parameters.
        positions = self.pos_embed.to(self.query_token.dtype).expand(query_index.shape[0], -1, -1)
        queries = self.query_token + take_tokens(positions, query_index)  # B x n x P
        class_query = self.query_token.expand(queries.shape[0], -1, -1)  # its position is zero
        return torch.cat([queries, class_query], dim=1)

    def answer(self, x: Tensor) -> Tensor:
        """Return the semantic tokens that the last layer's output says, `B x (n + 1) x C`."""
        return self.head(self.norm(x))
