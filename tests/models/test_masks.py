"""Attention masks and token orders against their definitions, element by element."""

from __future__ import annotations

import pytest
import torch

from arvis_scale.models.masks import block_causal_mask, block_order, prefix_mask, segment_mask


def block_of(patch: int, grid: int, side: int) -> int:
    row, column = divmod(patch, grid)
    return (row // side) * (grid // side) + column // side


@pytest.mark.parametrize(("grid", "side"), [(4, 1), (4, 2), (6, 3), (6, 2), (4, 4)])
def test_block_causal_mask_in_block_order_is_the_definition_on_raster_patches(grid: int, side: int) -> None:
    order = block_order(grid, side).tolist()
    assert sorted(order) == list(range(grid**2))
    mask = block_causal_mask((grid // side) ** 2, side**2)
    for row, query in enumerate(order):
        for column, key in enumerate(order):
            assert mask[row, column].item() == (block_of(key, grid, side) <= block_of(query, grid, side))


def test_block_order_goes_block_by_block_and_raster_inside() -> None:
    assert block_order(4, 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert block_order(3, 1).tolist() == list(range(9))


@pytest.mark.parametrize("side", [0, 3, 8])
def test_a_side_that_does_not_divide_the_grid_is_refused(side: int) -> None:
    with pytest.raises(ValueError, match=f"side={side} does not divide the grid of 4 x 4"):
        block_order(4, side)


def test_segment_mask_counts_the_class_token_to_the_last_segment() -> None:
    segments = [0, 0, 1, 1, 1]
    mask = segment_mask(2, 2)
    assert mask.tolist() == [[key <= query for key in segments] for query in segments]


def test_prefix_mask_is_bidirectional_inside_the_prefix_and_causal_after() -> None:
    lengths = [1, 2, 4]
    mask = prefix_mask(torch.tensor(lengths), num_tokens=4)
    assert mask.shape == (3, 1, 4, 4)
    for image, length in enumerate(lengths):
        for query in range(4):
            for key in range(4):
                expected = key <= query or (query < length and key < length)
                assert mask[image, 0, query, key].item() == expected
