"""Memory of a pass found without data: counted by hand where that is possible."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from arvis_scale.models.build import OBJECTIVES, build_objective
from arvis_scale.planning.live_memory import Courses, course_of, stage_courses

BATCH, WIDTH, HIDDEN = 64, 256, 512


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.second = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.second(self.first(batch["images"]).relu()).square().mean(), {}


def shapes(batch_size: int) -> dict[str, Tensor]:
    return {
        "images": torch.zeros(batch_size, 3, 32, 32),
        "sample_seeds": torch.zeros(batch_size, dtype=torch.int64),
        "step": torch.zeros((), dtype=torch.int64),
        "teacher_tokens": torch.zeros(batch_size, 17, 48),
    }


def build(name: str):
    teacher = {"teacher_width": 48, "teacher_grid": 4} if name == "digpt" else {}
    options = {"xtra": {"block_side": 2}, "digpt": {"segment_side": 2}, "igpt": {"resolution": 8, "palette_size": 16}}
    return build_objective(name, preset="nano", image_size=32, patch_size=8, options=options.get(name, {}), **teacher)


def test_two_layers_counted_by_hand() -> None:
    course = course_of(TwoLayers, lambda: {"images": torch.zeros(BATCH, WIDTH)}, torch.float32)  # type: ignore[arg-type]
    inputs, hidden, output = (4 * BATCH * width for width in (WIDTH, HIDDEN, WIDTH))
    # When the forward pass has ended the result of the first layer itself is gone: ReLU keeps its own.
    kept = inputs + hidden + output
    assert course.live_bytes[course.forward_end - 1] == pytest.approx(kept, rel=0.01)
    assert course.finished_grads[-1] == 2 * WIDTH * HIDDEN
    # At the end nothing is left but the images, and the loss and its gradient.
    assert course.live_bytes[-1] < inputs + 2048


@pytest.mark.parametrize("name", OBJECTIVES)
def test_other_batch_sizes_follow_from_two(name: str) -> None:
    small, large, wanted = (
        course_of(lambda: build(name), lambda size=size: shapes(size), torch.float32)  # type: ignore[misc]
        for size in (2, 4, 16)
    )
    course = Courses(small, large, (2, 4)).at(16)
    # Whole units of 512 bytes weigh most in the small batches of so small a model.
    assert course.live_bytes.max() == pytest.approx(wanted.live_bytes.max(), rel=0.05)


def test_bf16_takes_less_but_images_and_loss_stay_fp32() -> None:
    full, half = (
        course_of(lambda: build("xtra"), lambda: shapes(8), dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0.5 < half.live_bytes.max() / full.live_bytes.max() < 0.8


@pytest.mark.parametrize("name", OBJECTIVES)
def test_stages_hold_together_what_the_whole_holds(name: str) -> None:
    num_layers = len(build(name).pipeline_layers())
    bounds = [0, num_layers // 2, num_layers]
    first, second = stage_courses(lambda: build(name), lambda: shapes(8), bounds, torch.float32)
    whole = course_of(lambda: build(name), lambda: shapes(8), torch.float32)
    assert first.finished_grads[-1] + second.finished_grads[-1] == whole.finished_grads[-1]
    kept = [course.live_bytes[course.forward_end - 1] for course in (first, second, whole)]
    # What crosses the boundary is held on both sides, and the batch's entries travel along.
    assert kept[2] <= kept[0] + kept[1] < 1.5 * kept[2]


def test_micro_batches_that_wait_are_added() -> None:
    course = course_of(lambda: build("aim"), lambda: shapes(2), torch.float32)
    kept = course.live_bytes[course.forward_end - 1]
    assert np.array_equal(course.with_kept(3).live_bytes, course.live_bytes + 3 * kept)
