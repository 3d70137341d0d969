"""D-iGPT (arXiv 2312.02147): segments in random order, semantic tokens of a frozen teacher as targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arvis_scale.models import draws, initialization
from arvis_scale.models.encoder import Encoder, take_tokens
from arvis_scale.models.masks import block_order, check_divides, segment_mask
from arvis_scale.models.objective import Objective, mean_over_images, sample_seeds_of
from arvis_scale.models.pipeline import Step, block_steps
from arvis_scale.models.presets import EncoderSize
from arvis_scale.models.semantic_decoder import SemanticDecoder

DECODERS = ("generative", "discriminative")


def tap_layers(depth: int) -> list[int]:
    """Return the four encoder layers that the decoders read, counted from 1: ceil(depth * {3, 4, 5, 6} / 6)."""
    return [-(-depth * sixths // 6) for sixths in (3, 4, 5, 6)]


def answered(decoder: str, segment_order: Tensor) -> Tensor:
    """Return the segments that a decoder of `DECODERS` answers for, `B x S` -> `B x (S-1)`: the next or the visible."""
    return segment_order[:, 1:] if decoder == "generative" else segment_order[:, :-1]


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

    encoder: Encoder
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
        if unknown or not decoders or len(set(decoders)) < len(decoders):
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
        taps = self.encoder(
            images,
            layers=self.tap_layers,
            token_order=self._patches(segment_order[:, :-1]),
            mask=self.mask,
            sample_seeds=sample_seeds,
        )
        return {
            name: decoder(taps, self._patches(answered(name, segment_order)), self.mask)
            for name, decoder in self.decoders.items()
        }

    def _decoder(self, name: str) -> SemanticDecoder:
        decoder = self.decoders[name]
        assert isinstance(decoder, SemanticDecoder)
        return decoder

    def _patches(self, segments: Tensor) -> Tensor:
        """Return the raster numbers of the patches of `segments`, `B x s` -> `B x s*side^2`."""
        return self.student_segments[segments].flatten(1)

    def image_losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each image, `B`, and each decoder's part of it."""
        order = self.segment_order(batch)
        predictions = self.predict_tokens(batch["images"], order, batch.get("sample_seeds"))
        parts = self._decoder_losses(predictions, batch["teacher_tokens"], order)
        return torch.stack(list(parts.values())).sum(dim=0), parts

    def _decoder_losses(
        self, predictions: dict[str, Tensor], teacher_tokens: Tensor, segment_order: Tensor
    ) -> dict[str, Tensor]:
        """Return the loss of each image under each decoder, `B` each; `teacher_tokens`: `B x (1 + gt*gt) x C`."""
        if teacher_tokens.shape[1:] != self.teacher_shape:
            got, expected = (" x ".join(map(str, shape)) for shape in (teacher_tokens.shape[1:], self.teacher_shape))
            raise ValueError(f"teacher_tokens are {got} per image, the model was built for {expected}")
        return {
            f"{name}_loss": self._cosine_loss(prediction, teacher_tokens, answered(name, segment_order))
            for name, prediction in predictions.items()
        }

    def _cosine_loss(self, prediction: Tensor, teacher_tokens: Tensor, segments: Tensor) -> Tensor:
        """Return the mean of `2 - 2 cos` over the tokens of `segments` (`B x s`) and the class token, `B`."""
        targets = take_tokens(teacher_tokens[:, 1:], self.teacher_segments[segments].flatten(1))
        targets = torch.cat([targets, teacher_tokens[:, :1]], dim=1)
        resized = resize_segments(prediction[:, :-1], self.segment_side, self.teacher_segment_side)
        resized = torch.cat([resized, prediction[:, -1:]], dim=1)
        cosine = F.cosine_similarity(resized.float(), targets.float(), dim=-1)  # B x tokens
        return (2 - 2 * cosine).mean(dim=1)

    def pipeline_steps(self) -> list[Step]:
        """Return the computation of `forward`, a transformer layer a step; taps and targets travel along."""
        embedding = tuple(f"encoder.{part}" for part in self.encoder.embedding_parts)
        width, names = self.encoder.width, tuple(self.decoders)
        return [
            Step(
                "encoder_0", ("images", "sample_seeds"), (*embedding, "student_segments"), Digpt._pipeline_start, width
            ),
            *block_steps(
                "encoder",
                "encoder.blocks",
                self.encoder.depth,
                width=width,
                reads=("sample_seeds",),
                parts=("mask",),
                arguments=lambda model, layer, sample_seeds: (model.mask, sample_seeds),
            ),
            # First of all decoders, so that taps travel no further.
            *(self._projection_step(name) for name in names),
            *(step for name in names for step in self._decoder_steps(name)),
            Step(
                "loss",
                ("teacher_tokens", "sample_seeds", "weights", *names),
                ("teacher_segments",),
                lambda model, *tensors: model._pipeline_loss(names, *tensors),
            ),
        ]

    def _projection_step(self, name: str) -> Step:
        decoder = self._decoder(name)
        taps = tuple(dict.fromkeys(f"encoder_{layer}" for layer in self.tap_layers))  # one may be tapped twice

        def compute(model: Digpt, *tensors: Tensor) -> Tensor:
            tapped = dict(zip(taps, tensors, strict=True))
            features = model._decoder(name).project([tapped[f"encoder_{layer}"] for layer in model.tap_layers])
            return features.flatten(2)  # B x (n + 1) x P*depth

        parts = (f"decoders.{name}.tap_norm", f"decoders.{name}.tap_proj")
        return Step(f"{name}_features", taps, parts, compute, decoder.width * decoder.depth)

    def _decoder_steps(self, name: str) -> list[Step]:
        parts, decoder = f"decoders.{name}", self._decoder(name)
        width, depth = decoder.width, decoder.depth

        def start(model: Digpt, sample_seeds: Tensor) -> Tensor:
            order = model.segment_order({"sample_seeds": sample_seeds})
            return model._decoder(name).queries(model._patches(answered(name, order)))

        return [
            Step(
                f"{name}_0",
                ("sample_seeds",),
                (f"{parts}.query_token", f"{parts}.pos_embed", "student_segments"),
                start,
                width,
            ),
            *block_steps(
                name,
                f"{parts}.blocks",
                depth,
                width=width,
                reads=(f"{name}_features",),
                parts=("mask",),
                arguments=lambda model, layer, features: (
                    features.unflatten(-1, (width, depth))[..., layer],
                    model.mask,
                ),
            ),
            Step(
                name,
                (f"{name}_{depth}",),
                (f"{parts}.norm", f"{parts}.head"),
                lambda model, x: model._decoder(name).answer(x),
                self.teacher_shape[1],
            ),
        ]

    def _pipeline_start(self, images: Tensor, sample_seeds: Tensor) -> Tensor:
        # Orders are drawn again where they are read.
        order = self.segment_order({"sample_seeds": sample_seeds})
        return self.encoder.embed(images, self._patches(order[:, :-1]))

    def _pipeline_loss(
        self,
        names: tuple[str, ...],
        teacher_tokens: Tensor,
        sample_seeds: Tensor,
        weights: Tensor,
        *predictions: Tensor,
    ) -> Tensor:
        order = self.segment_order({"sample_seeds": sample_seeds})
        parts = self._decoder_losses(dict(zip(names, predictions, strict=True)), teacher_tokens, order)
        return mean_over_images(torch.stack(list(parts.values())).sum(dim=0), weights)
