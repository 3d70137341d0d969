"""D-iGPT (arXiv 2312.02147): segments in random order, semantic tokens of a frozen teacher as targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arvis_scale.models import draws, initialization
from arvis_scale.models.encoder import Encoder, take_tokens
from arvis_scale.models.masks import block_order, check_divides, segment_mask
from arvis_scale.models.objective import Objective, sample_seeds_of
from arvis_scale.models.presets import EncoderSize
from arvis_scale.models.semantic_decoder import SemanticDecoder

DECODERS = ("generative", "discriminative")


def tap_layers(depth: int) -> list[int]:
    """Return the four encoder layers that the decoders read, counted from 1: ceil(depth * {3, 4, 5, 6} / 6)."""
    return [-(-depth * sixths // 6) for sixths in (3, 4, 5, 6)]


def resize_segments(tokens: Tensor, side: int, new_side: int) -> Tensor:
    """Resize each segment bilinearly (corners not aligned): `B x s*side^2 x C` -> `B x s*new_side^2 x C`."""
    if side == new_side:
        return tokens
    batch, channels = tokens.shape[0], tokens.shape[2]
    maps = tokens.reshape(-1, side, side, channels).permute(0, 3, 1, 2)  # (B*s) x C x side x side
    maps = F.interpolate(maps, size=(new_side, new_side), mode="bilinear", align_corners=False)
    return maps.permute(0, 2, 3, 1).reshape(batch, -1, channels)


class Digpt(Objective):
    """Sum over the decoders of the mean of `2 - 2 cos(prediction, semantic token)`.

    Parts of the loss: `generative_loss`, `discriminative_loss`, as far as these decoders exist.
    """

    student_segments: Tensor  # S x patches of a segment: raster numbers in the student's grid
    teacher_segments: Tensor  # S x patches of a segment: raster numbers in the teacher's grid
    mask: Tensor  # (n + 1) x (n + 1), n tokens of the visible segments

    def __init__(
        self,
        *,
        size: EncoderSize,  # of the encoder
        image_size: int,  # side of the image in pixels
        patch_size: int,  # side of a patch in pixels
        segment_side: int,  # side of a segment in patches
        decoders: Sequence[str],  # of DECODERS
        decoder_width: int,  # channels of each decoder
        decoder_depth: int,  # layers of each decoder
        decoder_heads: int,  # attention heads of each decoder
        teacher_width: int,  # channels of a semantic token
        teacher_grid: int,  # semantic tokens per side of the image
    ) -> None:
        super().__init__()
        unknown = sorted(set(decoders) - set(DECODERS))
        if unknown or not decoders:
            raise ValueError(f"decoders={list(decoders)} must name one or both of {', '.join(DECODERS)}")
        self.encoder = Encoder(
            size=size, image_size=image_size, patch_size=patch_size, class_token=True, final_norm=False
        )
        self._set_segments(segment_side, teacher_grid)
        self.tap_layers = tap_layers(size.depth)
        self.decoders = nn.ModuleDict()
        for name in DECODERS:
            if name in decoders:
                self.decoders[name] = SemanticDecoder(
                    encoder_width=size.width,
                    num_taps=len(self.tap_layers),
                    grid=self.encoder.grid,
                    width=decoder_width,
                    depth=decoder_depth,
                    num_heads=decoder_heads,
                    token_width=teacher_width,
                )
        self.teacher_shape = (1 + teacher_grid**2, teacher_width)
        self.apply(initialization.xavier_uniform)

    def _set_segments(self, segment_side: int, teacher_grid: int) -> None:
        grid = self.encoder.grid
        check_divides(segment_side, grid, "segment_side")
        per_side = grid // segment_side
        if per_side < 2:
            raise ValueError(f"segment_side={segment_side} makes the image one segment, which leaves none to predict")
        if teacher_grid % per_side:
            raise ValueError(
                f"teacher_grid={teacher_grid} cannot be cut into {per_side} x {per_side} segments, as "
                f"segment_side={segment_side} cuts the student's grid; choose another segment_side or teacher"
            )
        self.num_segments = per_side**2
        self.segment_side = segment_side
        self.teacher_segment_side = teacher_grid // per_side
        student = block_order(grid, segment_side).view(self.num_segments, -1)
        teacher = block_order(teacher_grid, self.teacher_segment_side).view(self.num_segments, -1)
        self.register_buffer("student_segments", student, persistent=False)
        self.register_buffer("teacher_segments", teacher, persistent=False)
        self.register_buffer("mask", segment_mask(self.num_segments - 1, segment_side**2), persistent=False)

    def segment_order(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the raster number of the segment at each place, `B x S`: `batch["segment_order"]`, else random."""
        if "segment_order" in batch:
            return batch["segment_order"]
        return draws.segment_orders(sample_seeds_of(batch, "segment orders"), self.num_segments)

    def predict_tokens(
        self, images: Tensor, segment_order: Tensor, sample_seeds: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return each decoder's tokens before resizing, `B x (n + 1) x C`: its segments in order, then the class token.

        The generative decoder answers for the segments at places 2 .. S, the discriminative one for 1 .. S-1.
        """
        visible = self.student_segments[segment_order[:, :-1]].flatten(1)  # B x n
        upcoming = self.student_segments[segment_order[:, 1:]].flatten(1)
        taps = self.encoder(
            images, layers=self.tap_layers, token_order=visible, mask=self.mask, sample_seeds=sample_seeds
        )
        queries = {"generative": upcoming, "discriminative": visible}
        return {name: decoder(taps, queries[name], self.mask) for name, decoder in self.decoders.items()}

    def image_losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each image, `B`, and each decoder's part of it."""
        teacher_tokens = batch["teacher_tokens"]  # B x (1 + gt*gt) x C
        if teacher_tokens.shape[1:] != self.teacher_shape:
            got, expected = (" x ".join(map(str, shape)) for shape in (teacher_tokens.shape[1:], self.teacher_shape))
            raise ValueError(f"teacher_tokens are {got} per image, the model was built for {expected}")
        order = self.segment_order(batch)
        places = {"generative": order[:, 1:], "discriminative": order[:, :-1]}
        predictions = self.predict_tokens(batch["images"], order, batch.get("sample_seeds"))
        parts = {
            f"{name}_loss": self._cosine_loss(prediction, teacher_tokens, places[name])
            for name, prediction in predictions.items()
        }
        return torch.stack(list(parts.values())).sum(dim=0), parts

    def _cosine_loss(self, prediction: Tensor, teacher_tokens: Tensor, segments: Tensor) -> Tensor:
        """Return the mean of `2 - 2 cos` over the tokens of `segments` (`B x s`) and the class token, `B`."""
        targets = take_tokens(teacher_tokens[:, 1:], self.teacher_segments[segments].flatten(1))
        targets = torch.cat([targets, teacher_tokens[:, :1]], dim=1)
        resized = resize_segments(prediction[:, :-1], self.segment_side, self.teacher_segment_side)
        resized = torch.cat([resized, prediction[:, -1:]], dim=1)
        cosine = F.cosine_similarity(resized.float(), targets.float(), dim=-1)  # B x tokens
        return (2 - 2 * cosine).mean(dim=1)
