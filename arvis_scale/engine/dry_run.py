"""A run rehearsed for any number of processes in one, without its memory: every shape, batch, share and stage.

Three things are done. The real model computes a micro batch forward and backward on tensors without content, as a whole
and stage by stage. The shares that ZeRO would cut its parameters into are worked out for every process. And DeepSpeed
itself is started for the whole number of processes on torch's fake process group, whose collectives return at once with
whatever is in memory, and takes a step as process 0; a model that would need too much memory is replaced by the same
objective with the smallest encoder that its options allow.

Not covered: other processes' own view of DeepSpeed's start, collectives that would hang or run out of memory, and later
stages' schedule in the pipeline.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.distributed as dist

from arvis_scale.config import RunConfig
from arvis_scale.engine.distributed import Processes
from arvis_scale.engine.parallel.activation_checkpointing import checkpoint_blocks
from arvis_scale.engine.parallel.deepspeed_here import init_distributed
from arvis_scale.engine.parallel.pipeline_engine import PipelineEngine
from arvis_scale.engine.parallel.stages import stage_bounds
from arvis_scale.engine.parallel.strategy import deepspeed_config
from arvis_scale.engine.parallel.zero_engine import ZeroEngine
from arvis_scale.engine.setup import build_of, shapes_of_batch, teacher_shape_of
from arvis_scale.models.objective import Objective
from arvis_scale.models.presets import PRESETS
from arvis_scale.planning.live_memory import course_of, stage_courses

# DeepSpeed holds four or five times its parameters: with these, and what it imports, 2.5 GB.
_MAX_PARAMS = 80e6
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def dry_run_of(config: RunConfig) -> list[str]:
    """Rehearse the run; return what was found good, a line each.

    Raises `ValueError` for what does not fit. To be called in a process without a process group.
    """
    lines = [_check_batches(config), *_check_shapes(config), *_check_shares(config)]
    return [*lines, _rehearse(config)]


def _check_batches(config: RunConfig) -> str:
    config.validate()
    deepspeed_config(config)
    copies, steps = config.data_parallel_size, config.accumulation_steps
    if config.parallel.stages > 1 and steps < config.parallel.stages:
        idle = f"; fewer micro batches than stages, {config.parallel.stages}, leave stages idle"
    else:
        idle = ""
    return (
        f"batches: {config.global_batch_size} images = {copies} shares x {steps} micro batches x "
        f"{config.micro_batch_size}{idle}"
    )


def _check_shapes(config: RunConfig) -> Iterator[str]:
    """Compute a micro batch with the real model, and stage by stage."""
    dtype = _DTYPES[config.precision]

    def build() -> Objective:
        objective = build_of(config, teacher_shape_of(config))
        checkpoint_blocks(objective, config.parallel.activation_checkpointing_every)
        return objective

    def shapes() -> dict[str, torch.Tensor]:
        return shapes_of_batch(config, config.micro_batch_size)

    total = sum(_numels(config))
    if config.parallel.stages == 1:
        course = course_of(build, shapes, dtype)
        assert course.finished_grads[-1] == total, "every parameter gets a gradient"
        yield f"shapes: {config.objective} {config.preset}, {total:,} parameters, forward and backward pass"
        return
    bounds = stage_bounds(config)
    courses = stage_courses(build, shapes, bounds, dtype)
    assert sum(course.finished_grads[-1] for course in courses) == total, "every parameter belongs to one stage"
    stages = ", ".join(
        f"layers {start}-{stop - 1} with {course.finished_grads[-1]:,} parameters"
        for start, stop, course in zip(bounds[:-1], bounds[1:], courses, strict=True)
    )
    yield f"stages: {stages}; each computes what the one before it sends, and sends gradients back"


def _numels(config: RunConfig) -> list[int]:
    with torch.device("meta"):
        objective = build_of(config, teacher_shape_of(config))
    return [parameter.numel() for parameter in objective.parameters()]


def _check_shares(config: RunConfig) -> Iterator[str]:
    """Work out the shares of the state: of flat groups in ZeRO-1 and 2, of every parameter in ZeRO-3."""
    stage = deepspeed_config(config)["zero_optimization"]["stage"]
    ranks, numels = config.data_parallel_size, _numels(config)
    if stage == 0 or config.parallel.stages > 1:
        return
    if stage < 3:
        padded = -(-sum(numels) // (2 * ranks)) * 2 * ranks
        empty = 0
        share = padded // ranks
    else:
        shares = [-(-numel // ranks) for numel in numels]
        share, padded = sum(shares), sum(shares) * ranks
        # The last process that holds anything of a parameter.
        empty = ranks - max(-(-numel // part) for numel, part in zip(numels, shares, strict=True))
    yield (
        f"shares: {share:,} parameters for each of {ranks} processes, {padded / sum(numels) - 1:.2%} of it padding"
        + (f"; {empty} processes hold padding alone" if empty else "")
    )


def _rehearse(config: RunConfig) -> str:
    """Start DeepSpeed for all processes, and take a step, as process 0."""
    small = _small_enough(config)
    with _fake_processes(config.parallel.processes) as processes:
        objective = build_of(small, teacher_shape_of(small))
        checkpoint_blocks(objective, small.parallel.activation_checkpointing_every)
        engine_type = PipelineEngine if small.parallel.stages > 1 else ZeroEngine
        engine = engine_type(objective, small, processes)
        engine.train_step(lambda: shapes_of_batch(small, small.micro_batch_size))
    what = "the model itself" if small.preset == config.preset else f"the same objective with encoder {small.preset}"
    return (
        f"DeepSpeed: {config.parallel.strategy} started for {config.parallel.processes} processes, one step of {what}"
    )


def _small_enough(config: RunConfig) -> RunConfig:
    """Return the run with one image per micro batch, few of them, and an encoder that memory holds."""
    batch = config.data_parallel_size * config.parallel.stages
    small = replace(config, micro_batch_size=1, global_batch_size=batch, samples_seen=batch)
    if sum(_numels(config)) <= _MAX_PARAMS:
        return small
    for preset, size in PRESETS.items():
        candidate = replace(small, preset=preset)
        try:
            numels = _numels(candidate)
        except ValueError:  # an option that was given does not fit this width
            continue
        if sum(numels) <= _MAX_PARAMS and size.depth >= config.parallel.stages:
            return candidate
    raise ValueError(
        f"no encoder of less than {_MAX_PARAMS / 1e6:.0f}M parameters fits the options of "
        f"objective={config.objective}; leave sizes of its section to their rules, or plan without --dry-run"
    )


@contextmanager
def _fake_processes(world_size: int) -> Iterator[Processes]:
    """Be process 0 of `world_size`, whose collectives do nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(world_size))
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    try:
        init_distributed(verbose=False)
        group = dist.group.WORLD
        assert group is not None, "it was just made"
        yield Processes(rank=0, local_rank=0, world_size=world_size, device=torch.device("cpu"), control=group)
    finally:
        dist.destroy_process_group()
