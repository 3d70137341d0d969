"""Bytes of ZeRO's stages by hand; measured runs are in tests/distributed/test_plan_memory.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from arvis_scale.planning.live_memory import Course
from arvis_scale.planning.zero_memory import Moment, Spread, Weights, moments_of

MILLION = 10**6
WEIGHTS = Weights(matrices=(60 * MILLION, 39 * MILLION), vectors=(MILLION,))
NOTHING = Course(np.zeros(2), np.array([0, 100 * MILLION]), forward_end=1)


def moments(stage: int, *, ranks: int = 1, element_bytes: int = 2, **zero: Any) -> dict[str, Moment]:
    spread = Spread({"stage": stage, "reduce_bucket_size": 5 * MILLION, **zero}, ranks, element_bytes, False, False)
    return {moment.name: moment for moment in moments_of(WEIGHTS, NOTHING, spread)}


@pytest.mark.parametrize(("stage", "ranks"), [(1, 1), (1, 4), (2, 4), (2, 512), (3, 4), (3, 512)])
def test_bf16_with_fp32_master_weights_and_moments(stage: int, ranks: int) -> None:
    """Two bytes a weight, four a master weight, eight for its moments, the last twelve shared (arXiv 1910.02054)."""
    step = moments(stage, ranks=ranks)["step"].parts
    assert step["optimizer"] == pytest.approx(12 * 100 * MILLION / ranks, rel=1e-3)
    whole = stage < 3 or ranks == 1
    assert step["parameters"] == pytest.approx(2 * 100 * MILLION / (1 if whole else ranks), rel=1e-3)


def test_zero0_in_fp32_takes_sixteen_bytes_a_parameter() -> None:
    assert moments(0, element_bytes=4)["backward"].total == 16 * 100 * MILLION


def test_more_processes_never_need_more() -> None:
    for stage in (1, 2, 3):
        peaks = [max(m.total for m in moments(stage, ranks=ranks).values()) for ranks in (2, 8, 64)]
        assert peaks == sorted(peaks, reverse=True)


def test_accumulated_gradients_are_there_from_the_first_moment() -> None:
    spread = Spread({"stage": 1, "reduce_bucket_size": 5 * MILLION}, 4, 2, True, False)
    early = Course(np.array([10.0**9, 0.0]), np.array([0, 100 * MILLION]), forward_end=1)
    forward = next(moment for moment in moments_of(WEIGHTS, early, spread) if moment.name == "forward")
    assert forward.parts["gradients"] == 2 * 100 * MILLION


def test_offloaded_state_is_the_hosts() -> None:
    offload = {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    kept, moved = moments(3, ranks=4)["step"], moments(3, ranks=4, **offload)["step"]
    assert moved.parts["optimizer"] == moved.parts["gradients"] == 0
    assert moved.host >= kept.parts["optimizer"] + kept.parts["gradients"]


def test_untouched_pages_of_a_bucket_count_on_a_gpu_alone() -> None:
    zero = {"stage": 2, "reduce_bucket_size": 500 * MILLION}
    gpu, cpu = (
        {m.name: m for m in moments_of(WEIGHTS, NOTHING, Spread(zero, 1, 4, False, touched))}
        for touched in (False, True)
    )
    assert gpu["reduce"].parts["buffers"] == 4 * 500 * MILLION
    assert cpu["reduce"].parts["buffers"] == 4 * 100 * MILLION
