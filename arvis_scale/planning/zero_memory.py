"""What DeepSpeed holds beside the activations, under every ZeRO stage, at the moments when memory is highest.

Read from DeepSpeed 0.19 (`runtime/zero/stage_1_and_2.py`, `stage3.py`, `partition_parameters.py`) and held to measured
runs by tests/distributed/test_plan_memory.py. AdamW keeps two fp32 moments; Muon's groups, which keep one, are counted
as AdamW's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from arvis_scale.planning.live_memory import Course

PARTS = ("parameters", "gradients", "optimizer", "activations", "teacher", "buffers")
# DeepSpeed's defaults for keys that a strategy's JSON leaves out (elements).
_DEFAULTS = {
    "reduce_bucket_size": 5e8,
    "stage3_prefetch_bucket_size": 5e7,
    "stage3_param_persistence_threshold": 1e5,
    "stage3_max_reuse_distance": 1e9,
    "sub_group_size": 1e9,
}
_FP32 = 4  # bytes


@dataclass(frozen=True)
class Weights:
    """The trained parameters of one process's model, or stage of one: elements of each."""

    matrices: tuple[int, ...]
    vectors: tuple[int, ...]  # one-dimensional: no weight decay, so a group of their own

    @property
    def groups(self) -> list[int]:
        """Elements of each parameter group of the optimizer."""
        return [sum(group) for group in (self.matrices, self.vectors) if group]

    @property
    def total(self) -> int:
        """Elements of all."""
        return sum(self.groups)


@dataclass(frozen=True)
class Spread:
    """How the weights are spread over processes and handled by the engine."""

    zero: Mapping[str, Any]  # `zero_optimization` of the DeepSpeed configuration
    ranks: int  # processes that share the state
    element_bytes: int  # of a parameter in the forward pass
    accumulates: bool  # several micro batches make a step
    # Only pages that were written to count, as in a CPU process's resident memory; else whole allocations, as on a GPU.
    touched_only: bool

    def setting(self, key: str) -> int:
        """Return a number of `zero`, or DeepSpeed's default."""
        return int(self.zero.get(key, _DEFAULTS[key]))

    def offloads(self, what: str) -> bool:
        """Return whether `what` (optimizer | param) lies in the host's memory, which on a CPU is the same."""
        return self.zero.get(f"offload_{what}", {}).get("device", "none") == "cpu"


@dataclass(frozen=True)
class Moment:
    """A moment of a training step: bytes by part, on the device and in the host's memory beside it."""

    name: str
    parts: dict[str, float]
    host: float = 0.0

    @property
    def total(self) -> float:
        """Bytes on the device."""
        return sum(self.parts.values())

    def plus(self, **parts: float) -> Moment:
        """Return the moment with more bytes of some parts."""
        return replace(self, parts={part: size + parts.get(part, 0.0) for part, size in self.parts.items()})


def moments_of(weights: Weights, course: Course, spread: Spread) -> list[Moment]:
    """Return the moments of a run's start and of its steps among which its peak lies."""
    form = {0: _zero0, 1: _zero1_and_2, 2: _zero1_and_2, 3: _zero3}[spread.zero["stage"]]
    return form(weights, course, spread)


def _moment(name: str, host: float = 0.0, **parts: float) -> Moment:
    return Moment(name, {part: parts.get(part, 0.0) for part in PARTS}, host)


def _worst(name: str, course: Course, held: Callable[[np.ndarray], dict[str, Any]], host: float = 0.0) -> Moment:
    """Return the worst moment of the passes; `held` gives the bytes of parts by the elements of finished gradients."""
    parts = {
        part: np.broadcast_to(value, course.live_bytes.shape) for part, value in held(course.finished_grads).items()
    }
    at = int(np.argmax(course.live_bytes + sum(parts.values())))
    name = "forward" if at < course.forward_end else name
    return _moment(name, host, activations=float(course.live_bytes[at]), **{k: float(v[at]) for k, v in parts.items()})


def _zero0(weights: Weights, course: Course, spread: Spread) -> list[Moment]:
    """Everything whole on every process; gradients are averaged through flat copies of buckets."""
    size = spread.element_bytes * weights.total
    state = {"parameters": size, "optimizer": 2 * _FP32 * weights.total}
    copied = min(spread.setting("reduce_bucket_size"), weights.total) * spread.element_bytes if spread.ranks > 1 else 0

    def held(finished: np.ndarray) -> dict[str, Any]:
        before = weights.total if spread.accumulates else 0
        return {**state, "gradients": np.maximum(finished, before) * spread.element_bytes}

    return [
        _worst("backward", course, held),
        _moment("reduce", **state, gradients=size, buffers=copied, activations=float(course.live_bytes[-1])),
    ]


def _zero1_and_2(weights: Weights, course: Course, spread: Spread) -> list[Moment]:
    """Whole parameters in flat groups, fp32 master weights and moments of a share; gradients of a share after step."""
    element, ranks = spread.element_bytes, spread.ranks
    shares = [-(-group // (2 * ranks)) * 2 for group in weights.groups]  # aligned for NCCL
    share, flat = sum(shares), element * sum(shares) * ranks
    state: dict[str, float] = {"parameters": flat, "optimizer": 3 * _FP32 * share}
    first_copy = element * shares[0] if element < _FP32 else 0
    start = _moment(
        "start",
        parameters=max(_FP32 * weights.total, element * weights.total + flat),
        optimizer=_FP32 * share + first_copy,
    )
    passes = _whole_grads if spread.zero["stage"] == 1 else _bucket_grads
    backward = _worst("backward", course, lambda finished: {**state, **passes(finished, weights, share, spread)})
    reduce = _reduce(weights, share, course, spread, state)
    # The share's gradients are flattened group by group, in fp32 beside the copy that it is cast from.
    flattened = (element + _FP32 if element < _FP32 else _FP32) * shares[0]
    step = _moment("step", **state, gradients=element * share, buffers=flattened)
    return [start, backward, reduce, step]


def _bucket(weights: Weights, spread: Spread) -> int:
    return min(spread.setting("reduce_bucket_size"), weights.total)


def _whole_grads(finished: np.ndarray, weights: Weights, share: int, spread: Spread) -> dict[str, Any]:
    """Stage 1: gradients stay whole until the last micro batch is done."""
    before = weights.total if spread.accumulates else 0
    return {"gradients": np.maximum(finished, before) * spread.element_bytes}


def _reduce(weights: Weights, share: int, course: Course, spread: Spread, state: dict[str, float]) -> Moment:
    """Return the worst flush of a bucket after the backward pass: its collective's copy, then the share's part of it.

    In stage 1 all gradients wait to go through the bucket; in stage 2 the last flush alone is left.
    """
    element, total, bucket = spread.element_bytes, weights.total, _bucket(weights, spread)
    num_buckets = 2 if spread.zero.get("overlap_comm", False) else 1
    allocated = (
        min(num_buckets * bucket, total) if spread.touched_only else num_buckets * spread.setting("reduce_bucket_size")
    )
    copy = bucket if spread.ranks > 1 else 0  # flattened once more for the collective
    num_flushes = -(-total // bucket)
    worst = (0.0, 0.0)
    for flush in range(num_flushes):
        waiting = max(total - (flush + 1) * bucket, 0) if spread.zero["stage"] == 1 else 0
        # Written page by page, or allocated whole after the first flush.
        before, after = (
            share * (done / num_flushes if spread.touched_only else min(done, 1)) for done in (flush, flush + 1)
        )
        worst = max(worst, (waiting + before, allocated + copy), (waiting + after, allocated), key=sum)
    return _moment(
        "reduce",
        **state,
        activations=float(course.live_bytes[-1]),
        gradients=element * worst[0],
        buffers=element * worst[1],
    )


def _bucket_grads(finished: np.ndarray, weights: Weights, share: int, spread: Spread) -> dict[str, Any]:
    """Stage 2: gradients move into a bucket, of two when communication overlaps, as soon as they are finished."""
    size = spread.setting("reduce_bucket_size")
    num_buckets = 2 if spread.zero.get("overlap_comm", False) else 1
    flushed = finished // size * size
    if spread.touched_only:
        buffers = np.minimum(finished, num_buckets * size)
        kept = share * flushed / max(weights.total, 1)
    else:
        buffers = np.full(finished.shape, num_buckets * size)
        kept = np.where(flushed > 0, share, 0)
    before = share if spread.accumulates else 0
    return {
        "gradients": spread.element_bytes * np.maximum(kept, before),
        "buffers": spread.element_bytes * buffers,
    }


def _zero3(weights: Weights, course: Course, spread: Spread) -> list[Moment]:
    """Shares of everything; parameters are gathered for their use and kept where that is soon enough again."""
    element, ranks = spread.element_bytes, spread.ranks
    numels = weights.matrices + weights.vectors
    share = sum(-(-numel // ranks) for numel in numels)
    optimizer, grads, own = 3 * _FP32 * share, element * share, element * share
    on_host = 0.0
    if not spread.touched_only:
        if spread.offloads("optimizer"):
            on_host += optimizer + grads + _FP32 * share  # fp32 gradients for the optimizer
            optimizer, grads = 0, 0
        if spread.offloads("param"):
            on_host += own
            own = 0
    elif spread.offloads("optimizer"):
        grads += _FP32 * share
    persistent = _persistent(numels, spread)
    bucket = _bucket(weights, spread) if spread.touched_only else spread.setting("reduce_bucket_size")
    state = {"optimizer": optimizer, "gradients": grads, "buffers": element * bucket}
    live, inflight = _gathered(weights.total, persistent, spread)

    def held(finished: np.ndarray) -> dict[str, Any]:
        moments = np.arange(finished.size)
        forward = moments < course.forward_end
        needed = np.minimum(live, np.maximum(weights.total - finished, persistent))
        gathered = np.where(forward, live + inflight, needed) if ranks > 1 else 0
        return {**state, "parameters": own + element * gathered}

    copy = min(spread.setting("reduce_bucket_size"), weights.total) * element if ranks > 1 else 0
    resting = own + (element * persistent if ranks > 1 else 0)
    largest = min(spread.setting("sub_group_size"), share)
    flattened = 0 if spread.offloads("optimizer") else (_FP32 if element == _FP32 else element + _FP32) * largest
    return [
        _moment("start", parameters=_FP32 * weights.total),
        _worst("backward", course, held, on_host),
        _moment(
            "reduce",
            on_host,
            **{**state, "buffers": state["buffers"] + copy},
            parameters=resting,
            activations=float(course.live_bytes[-1]),
        ),
        _moment("step", on_host, **{**state, "buffers": state["buffers"] + flattened}, parameters=resting),
    ]


def _persistent(numels: tuple[int, ...], spread: Spread) -> int:
    threshold = spread.setting("stage3_param_persistence_threshold")
    return sum(numel for numel in numels if numel < threshold)


def _gathered(total: int, persistent: int, spread: Spread) -> tuple[int, int]:
    """Return the elements of gathered parameters at the end of the forward pass, and of the gather still under way.

    A parameter is kept when it is used again within `stage3_max_reuse_distance` elements: what the forward pass uses
    in the last half of that. A gather's flat result lives until the last of its parameters is used.
    """
    prefetched = min(spread.setting("stage3_prefetch_bucket_size"), total)
    kept = min(total, spread.setting("stage3_max_reuse_distance") // 2)
    return min(total, max(kept, prefetched) + persistent), prefetched
