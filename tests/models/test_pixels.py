"""Pixel targets: their layout and their statistics."""

from __future__ import annotations

import torch

from arvis_scale.models.pixels import from_squares, normalize_squares, to_squares


def test_squares_are_in_raster_order_and_their_values_in_channel_row_column_order() -> None:
    images = torch.randn(2, 3, 6, 6)
    squares = to_squares(images, 2)
    assert squares.shape == (2, 9, 12)
    for number in range(9):
        row, column = (2 * part for part in divmod(number, 3))
        assert torch.equal(squares[:, number], images[:, :, row : row + 2, column : column + 2].flatten(1))
    assert torch.equal(from_squares(squares, 2, 6), images)


def test_targets_have_zero_mean_and_unit_unbiased_variance_each() -> None:
    squares = 5 + 3 * torch.randn(2, 4, 48) * torch.tensor([0.1, 1.0, 2.0, 10.0])[None, :, None]
    normalized = normalize_squares(squares)
    torch.testing.assert_close(normalized.values.mean(dim=2), torch.zeros(2, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalized.values.var(dim=2, correction=1), torch.ones(2, 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalized.undo(normalized.values), squares)


def test_a_square_of_one_color_has_targets_zero() -> None:
    assert not normalize_squares(torch.full((1, 1, 12), 0.7)).values.abs().max() > 1e-3


def test_normalization_does_not_depend_on_brightness_or_contrast() -> None:
    squares = torch.randn(1, 3, 48)
    torch.testing.assert_close(
        normalize_squares(7 * squares - 2).values, normalize_squares(squares).values, atol=1e-4, rtol=0
    )


def test_bfloat16_images_have_float32_targets() -> None:
    assert normalize_squares(torch.randn(1, 2, 12).bfloat16()).values.dtype == torch.float32
