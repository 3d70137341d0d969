"""The plainest correct formulation of every objective, which `objective_step.py` measures against. Frozen: not tuned.

Tokens of the whole image in raster order, a boolean mask handed to `scaled_dot_product_attention`, one torch operation
after the other, nothing skipped but the pixel head where there is no target. (D-iGPT's segments stand in each image's
own order and MAE's encoder sees the visible patches alone: so the methods are defined.) Parameters are named as in
`arvis_scale.models`, whose weights load. The options that change what is computed (stochastic depth, several heads,
block orders) are left out. Imports nothing but torch; `a` holds the arguments of the objective's class.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = dict[str, Tensor]


class PlainMlp(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int, output: int, bias: bool = True, output_bias: bool = True) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden, bias=bias)
        self.fc2 = nn.Linear(hidden, output, bias=output_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class PlainAttention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, num_heads: int, bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(x.transpose(1, 2).reshape(b, n, d))


class PlainCrossAttention(nn.Module):
    """Multi-head attention from queries to features."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        b, n, d = x.shape
        q = self.q(x).reshape(b, n, self.num_heads, -1).transpose(1, 2)
        k, v = self.kv(features).reshape(b, features.shape[1], 2, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(x.transpose(1, 2).reshape(b, n, d))


class PlainBlock(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, width: int, num_heads: int, mlp_hidden: int, bias: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = PlainAttention(width, num_heads, bias)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = PlainMlp(width, mlp_hidden, width, bias, bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


def plain_blocks(num: int, width: int, num_heads: int, mlp_hidden: int, bias: bool = True) -> nn.ModuleList:
    """Return `num` layers."""
    return nn.ModuleList(PlainBlock(width, num_heads, mlp_hidden, bias) for _ in range(num))


class PlainEncoder(nn.Module):
    """Vision transformer."""

    def __init__(
        self, a: SimpleNamespace, *, learned: bool = False, class_token: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        size, grid = a.size, a.image_size // a.patch_size
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, size.width, kernel_size=a.patch_size, stride=a.patch_size)
        if learned:
            self.pos_embed = nn.Parameter(torch.zeros(1, grid**2, size.width))
        else:
            self.register_buffer("pos_embed", sincos_positions(size.width, grid), persistent=False)
        if class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.blocks = plain_blocks(size.depth, size.width, size.num_heads, size.mlp_hidden, bias)
        self.norm = nn.LayerNorm(size.width, eps=1e-6)

    def embed(self, images: Tensor) -> Tensor:
        return self.patch_embed.proj(images.to(self.patch_embed.proj.weight.dtype)).flatten(2).transpose(1, 2)

    def tokens(self, images: Tensor, index: Tensor) -> Tensor:
        """The patches at `index` (`B x n`) with their positions, then the class token."""
        x = self.embed(images)
        x = x + self.pos_embed.to(x.dtype)
        x = x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))
        return torch.cat([x, self.cls_token.expand(len(x), -1, -1)], dim=1)

    def layers(self, x: Tensor, mask: Tensor | None) -> list[Tensor]:
        outputs = []
        for block in self.blocks:
            x = block(x, mask)
            outputs.append(x)
        return outputs

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embed(images)
        return self.norm(self.layers(x + self.pos_embed.to(x.dtype), mask)[-1])


def sincos_positions(width: int, grid: int) -> Tensor:
    """Two-dimensional sine-cosine positions as in MAE, `1 x grid^2 x width`: columns in the first half of channels."""
    frequency = 1.0 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    halves = []
    for axis in (column, row):
        angle = axis.flatten()[:, None] * frequency[None, :]
        halves += [angle.sin(), angle.cos()]
    return torch.cat(halves, dim=1).float()[None]


def squares(images: Tensor, side: int) -> Tensor:
    """Cut `B x 3 x H x W` into squares of `side` pixels in raster order, `B x S x 3*side*side`."""
    return F.unfold(images, side, stride=side).transpose(1, 2)


def normalized(targets: Tensor) -> Tensor:
    """Zero mean and unit variance over the last dimension."""
    mean, var = targets.mean(dim=-1, keepdim=True), targets.var(dim=-1, keepdim=True)
    return (targets - mean) / (var + 1e-6).sqrt()


def mean_where(counts: Tensor, error: Tensor) -> Tensor:
    """Mean over images of the mean `error` (`B x N`) where it `counts`."""
    return ((error * counts).sum(dim=1) / counts.sum(dim=1)).mean()


class PlainXtra(nn.Module):
    """XTRA (arXiv 2411.15648): raster layout, every block computed."""

    def __init__(self, a: SimpleNamespace) -> None:
        super().__init__()
        width, grid = a.predictor_width, a.image_size // a.patch_size
        self.block_side, self.per_side, self.block_pixels = (
            a.block_side,
            grid // a.block_side,
            a.block_side * a.patch_size,
        )
        self.encoder = PlainEncoder(a, learned=True)
        self.projection = PlainMlp(a.size.width, a.projection_hidden, width, output_bias=False)
        self.predictor = nn.Module()
        self.predictor.pos_embed = nn.Parameter(torch.zeros(1, grid**2, width))
        self.predictor.blocks = plain_blocks(a.predictor_depth, width, a.predictor_heads, 4 * width)
        self.predictor.norm = nn.LayerNorm(width, eps=1e-6)
        self.heads = nn.ModuleList([PlainMlp(width * a.block_side**2, a.head_hidden, 3 * self.block_pixels**2)])
        place = torch.arange(grid) // a.block_side
        block = (place[:, None] * self.per_side + place[None, :]).flatten()  # N: block of each patch
        self.register_buffer("mask", block[:, None] >= block[None, :], persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        x = self.projection(self.encoder(batch["images"], self.mask)) + self.predictor.pos_embed
        for block in self.predictor.blocks:
            x = block(x, self.mask)
        x = self.predictor.norm(x)  # B x N x P
        x = x.reshape(x.shape[0], self.per_side, self.block_side, self.per_side, self.block_side, -1)
        x = x.permute(0, 1, 3, 5, 2, 4).reshape(x.shape[0], self.per_side**2, -1)  # B x S x P*k*k
        targets = normalized(squares(batch["images"], self.block_pixels))
        return F.mse_loss(self.heads[0](x[:, :-1]).float(), targets[:, 1:])


class PlainAim(nn.Module):
    """AIM (arXiv 2401.08541); `batch["prefix_length"]` (`B`) gives the prefixes."""

    def __init__(self, a: SimpleNamespace) -> None:
        super().__init__()
        self.patch_size = a.patch_size
        self.encoder = PlainEncoder(a, bias=False)
        self.encoder.patch_norm = nn.LayerNorm(a.size.width, eps=1e-6)
        self.head = nn.Module()
        self.head.embed = nn.Linear(a.size.width, a.head_width)
        self.head.blocks = nn.ModuleList()
        for _ in range(a.head_depth):
            block = nn.Module()
            block.norm = nn.LayerNorm(a.head_width, eps=1e-6)
            block.mlp = PlainMlp(a.head_width, a.head_expansion * a.head_width, a.head_width, False, False)
            self.head.blocks.append(block)
        self.head.norm = nn.LayerNorm(a.head_width, eps=1e-6)
        self.head.proj = nn.Linear(a.head_width, 3 * a.patch_size**2)

    def forward(self, batch: Batch) -> Tensor:
        prefix = batch["prefix_length"][:, None]  # B x 1
        x = self.encoder.patch_norm(self.encoder.embed(batch["images"]))
        positions = self.encoder.pos_embed.to(x.dtype)
        place = torch.arange(x.shape[1], device=x.device)
        mask = (place[:, None] >= place[None, :]) | (place[None, :] < prefix)[:, None, :]  # B x N x N
        x = self.encoder.norm(self.encoder.layers(x + positions, mask[:, None])[-1])
        x = self.head.embed((x + positions)[:, :-1])
        for block in self.head.blocks:
            x = x + block.mlp(block.norm(x))
        predictions = self.head.proj(self.head.norm(x)).float()
        targets = normalized(squares(batch["images"], self.patch_size))[:, 1:]
        error = (predictions - targets).square().mean(dim=-1)
        return mean_where(place[1:] >= prefix, error)


class PlainDecoder(nn.Module):
    """One decoder of D-iGPT."""

    def __init__(self, a: SimpleNamespace) -> None:
        super().__init__()
        width, depth = a.decoder_width, a.decoder_depth
        self.tap_norm = nn.LayerNorm(a.size.width)
        self.tap_proj = nn.Linear(4 * a.size.width, depth * width)
        self.query_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_embed", sincos_positions(width, a.image_size // a.patch_size)[0], persistent=False)
        self.blocks = nn.ModuleList()
        for _ in range(depth):
            block = nn.Module()
            for name in ("norm1", "norm_query", "norm_features", "norm2"):
                block.add_module(name, nn.LayerNorm(width, eps=1e-6))
            block.self_attn = PlainAttention(width, a.decoder_heads)
            block.cross_attn = PlainCrossAttention(width, a.decoder_heads)
            block.mlp = PlainMlp(width, 4 * width, width)
            self.blocks.append(block)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, a.teacher_width)

    def forward(self, taps: list[Tensor], queried: Tensor, mask: Tensor) -> Tensor:
        features = self.tap_proj(torch.cat([self.tap_norm(tap) for tap in taps], dim=-1))
        features = features.reshape(*features.shape[:2], -1, len(self.blocks))  # B x (n + 1) x P x depth
        queries = self.query_token + self.pos_embed[queried].to(self.query_token.dtype)
        x = torch.cat([queries, self.query_token.expand(len(queries), -1, -1)], dim=1)
        for layer, block in enumerate(self.blocks):
            x = x + block.self_attn(block.norm1(x), mask)
            x = x + block.cross_attn(block.norm_query(x), block.norm_features(features[..., layer]), mask)
            x = x + block.mlp(block.norm2(x))
        return self.head(self.norm(x))


class PlainDigpt(nn.Module):
    """D-iGPT (arXiv 2312.02147); `batch["segment_order"]` (`B x S`) gives the orders."""

    def __init__(self, a: SimpleNamespace) -> None:
        super().__init__()
        grid, side = a.image_size // a.patch_size, a.segment_side
        self.encoder = PlainEncoder(a, class_token=True)
        self.encoder.norm = nn.Identity()
        self.taps = [-(-a.size.depth * sixths // 6) for sixths in (3, 4, 5, 6)]
        self.decoders = nn.ModuleDict({name: PlainDecoder(a) for name in ("generative", "discriminative")})
        self.side, self.teacher_side = side, side * a.teacher_grid // grid
        for name, patches, square in (("student", grid, side), ("teacher", a.teacher_grid, self.teacher_side)):
            raster = torch.arange(patches**2, dtype=torch.float32).reshape(1, 1, patches, patches)
            segments = F.unfold(raster, square, stride=square)[0].T.long()  # S x patches of a segment
            self.register_buffer(name, segments, persistent=False)
        number = torch.arange((grid // side) ** 2 - 1).repeat_interleave(side**2)
        number = torch.cat([number, number[-1:]])  # the class token counts with the last segment
        self.register_buffer("mask", number[:, None] >= number[None, :], persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        order, tokens = batch["segment_order"], batch["teacher_tokens"]
        visible, upcoming = self.student[order[:, :-1]].flatten(1), self.student[order[:, 1:]].flatten(1)
        outputs = self.encoder.layers(self.encoder.tokens(batch["images"], visible), self.mask)
        taps = [outputs[layer - 1] for layer in self.taps]
        generated = self.decoders["generative"](taps, upcoming, self.mask)
        recognized = self.decoders["discriminative"](taps, visible, self.mask)
        return self._loss(generated, tokens, order[:, 1:]) + self._loss(recognized, tokens, order[:, :-1])

    def _loss(self, prediction: Tensor, tokens: Tensor, segments: Tensor) -> Tensor:
        index = self.teacher[segments].flatten(1)
        targets = tokens[:, 1:].gather(1, index[:, :, None].expand(-1, -1, tokens.shape[2]))
        targets = torch.cat([targets, tokens[:, :1]], dim=1)
        maps = prediction[:, :-1].reshape(-1, self.side, self.side, prediction.shape[2]).permute(0, 3, 1, 2)
        maps = F.interpolate(maps, size=(self.teacher_side, self.teacher_side), mode="bilinear", align_corners=False)
        maps = maps.permute(0, 2, 3, 1).reshape(len(prediction), -1, prediction.shape[2])
        prediction = torch.cat([maps, prediction[:, -1:]], dim=1)
        return (2 - 2 * F.cosine_similarity(prediction.float(), targets.float(), dim=-1)).mean()


class PlainIgpt(nn.Module):
    """iGPT (Chen et al., ICML 2020); `batch["colors"]` (int64, `B x N`) are the images."""

    def __init__(self, a: SimpleNamespace) -> None:
        super().__init__()
        pixels, width = a.resolution**2, a.size.width
        self.encoder = nn.Module()
        self.encoder.token_embed = nn.Embedding(a.palette_size, width)
        self.encoder.start_token = nn.Parameter(torch.zeros(1, 1, width))
        self.encoder.pos_embed = nn.Parameter(torch.zeros(1, pixels, width))
        self.encoder.blocks = plain_blocks(a.size.depth, width, a.size.num_heads, a.size.mlp_hidden)
        self.encoder.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, a.palette_size, bias=False)
        self.register_buffer("mask", torch.ones(pixels, pixels, dtype=torch.bool).tril(), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        colors = batch["colors"]
        start = self.encoder.start_token.expand(len(colors), -1, -1)
        x = torch.cat([start, self.encoder.token_embed(colors[:, :-1])], dim=1) + self.encoder.pos_embed
        for block in self.encoder.blocks:
            x = block(x, self.mask)
        return F.cross_entropy(self.head(self.encoder.norm(x)).float().transpose(1, 2), colors)


class PlainMae(nn.Module):
    """MAE (arXiv 2111.06377); `batch["visible_patches"]` (int64, `B x n`) tells which are not masked."""

    def __init__(self, a: SimpleNamespace) -> None:
        super().__init__()
        self.patch_size, grid, width = a.patch_size, a.image_size // a.patch_size, a.decoder_width
        self.encoder = PlainEncoder(a, class_token=True)
        self.decoder = nn.Module()
        self.decoder.embed = nn.Linear(a.size.width, width)
        self.decoder.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder.blocks = plain_blocks(a.decoder_depth, width, a.decoder_heads, 4 * width)
        self.decoder.norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder.proj = nn.Linear(width, 3 * a.patch_size**2)
        self.register_buffer("positions", sincos_positions(width, grid), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        visible = batch["visible_patches"]
        x = self.encoder.norm(self.encoder.layers(self.encoder.tokens(batch["images"], visible), None)[-1])
        x = self.decoder.embed(x)
        patches = self.decoder.mask_token.repeat(len(x), self.positions.shape[1], 1)
        patches = patches.scatter(1, visible[:, :, None].expand(-1, -1, x.shape[2]), x[:, :-1])
        x = torch.cat([patches + self.positions.to(x.dtype), x[:, -1:]], dim=1)
        for block in self.decoder.blocks:
            x = block(x)
        predictions = self.decoder.proj(self.decoder.norm(x))[:, :-1].float()
        error = (predictions - normalized(squares(batch["images"], self.patch_size))).square().mean(dim=-1)
        return mean_where(torch.ones_like(error, dtype=torch.bool).scatter(1, visible, False), error)


PLAIN = {"xtra": PlainXtra, "aim": PlainAim, "digpt": PlainDigpt, "igpt": PlainIgpt, "mae": PlainMae}
