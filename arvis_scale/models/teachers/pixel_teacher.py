"""Raw pixels as targets, D-iGPT's plainest tokenizer (arXiv 2312.02147, table of tokenizers)."""

from __future__ import annotations

import torch
from torch import Tensor

from arvis_scale.models.pixels import normalize_squares, to_squares
from arvis_scale.models.teachers.teacher import Teacher, TeacherShape, with_mean_token


def pixel_shape(image_size: int, patch_size: int) -> TeacherShape:
    """Return the values of a patch (3 * patch_size^2) and the patches per side of the image."""
    return TeacherShape(3 * patch_size**2, image_size // patch_size)


class PixelTeacher(Teacher):
    """A patch's token is its pixels, normalised over the patch as pixel targets are; the class token is their mean.

    There are no weights; tokens are float32, values in channel, row, column order.
    """

    def __init__(
        self,
        *,
        image_size: int,  # side of the image in pixels
        patch_size: int,  # side of a patch in pixels, divides image_size
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(pixel_shape(image_size, patch_size), image_size=image_size, device=device)
        self.patch_size = patch_size

    def tokens(self, images: Tensor) -> Tensor:
        return with_mean_token(normalize_squares(to_squares(images, self.patch_size)).values)
