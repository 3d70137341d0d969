"""A run planned: its configuration in, what it will cost out, before anything is started."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from itertools import pairwise
from math import isqrt
from typing import Any

import torch

from arvis_scale.config import STRATEGIES, RunConfig
from arvis_scale.engine.parallel.activation_checkpointing import checkpoint_blocks
from arvis_scale.engine.parallel.stages import stage_bounds
from arvis_scale.engine.parallel.strategy import deepspeed_config
from arvis_scale.engine.setup import build_of, shapes_of_batch, teacher_shape_of
from arvis_scale.models.objective import Objective
from arvis_scale.planning.costs import Cost, objective_cost, total_cost
from arvis_scale.planning.devices import Device, device_here, find_device
from arvis_scale.planning.flops import training_flops_per_sample
from arvis_scale.planning.live_memory import Course, Courses, course_of, stage_courses
from arvis_scale.planning.plan import Disk, RunPlan, StrategyPlan, SweepPlan
from arvis_scale.planning.teachers import teacher_cost
from arvis_scale.planning.timing import Speed, bubble, expected_speed, process_bytes
from arvis_scale.planning.zero_memory import Moment, Spread, Weights, moments_of

# Micro batches of these two sizes are traced; memory grows by the same bytes with every image.
_TRACED_SIZES = (2, 4)
_DEFAULT_STAGES = 2  # of a run that names none, for the column of the pipeline
_FP32 = 4
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def plan_run(config: RunConfig, device: str | None = None) -> RunPlan:
    """Return the plan of a run on `device` (`planning.devices`), by default this machine's kind.

    Raises `ValueError` for a run that cannot be trained.
    """
    return _Planner(config, device or device_here()).plan(STRATEGIES)


def plan_runs(configs: Iterable[RunConfig], device: str | None = None, *, with_memory: bool = True) -> SweepPlan:
    """Return the plans of the runs of a sweep and their sums.

    Runs that differ in their data, their length or their rates are planned once. Memory takes seconds per model, and a
    plan without it has no `strategies`.
    """
    done: dict[str, RunPlan] = {}
    plans = []
    for config in configs:
        key = _shape_of(config)
        if key not in done:
            done[key] = _Planner(config, device or device_here()).plan(STRATEGIES if with_memory else ())
        plan = done[key]
        disk = _disk(config, encoder=plan.params_encoder, total=plan.params_total)
        plans.append(replace(plan, name=config.name, num_steps=config.num_steps, disk=disk))
    return SweepPlan.of(plans)


def _shape_of(config: RunConfig) -> str:
    """Return all that the cost of one step and its memory depend on."""
    sizes = (config.image_size, config.patch_size, config.global_batch_size, config.micro_batch_size)
    options = getattr(config, config.objective)
    model = f"{config.objective} {config.preset} {options} {config.teacher}"
    return f"{model} {sizes} {config.precision} {config.parallel} {config.optimizer.name}"


class _Planner:
    """The plan of one run; what several strategies ask for is found once."""

    def __init__(self, config: RunConfig, device: str) -> None:
        self.config = config
        self.device: Device = find_device(device, config.precision, num_here=config.parallel.processes)
        self.element_bytes = _DTYPES[config.precision].itemsize
        shape = teacher_shape_of(config)
        self.teacher = teacher_cost(config.teacher) if shape else Cost()
        self.costs = objective_cost(
            config.objective,
            preset=config.preset,
            image_size=config.image_size,
            patch_size=config.patch_size,
            options=asdict(getattr(config, config.objective)),
            teacher_width=shape.width if shape else None,
            teacher_grid=shape.grid if shape else None,
        )
        with torch.device("meta"):
            self.objective = self._build()

    def plan(self, strategies: Sequence[str]) -> RunPlan:
        config, total = self.config, total_cost(self.costs)
        speed, step_seconds = self._step_seconds()
        return RunPlan(
            name=config.name,
            objective=config.objective,
            preset=config.preset,
            precision=config.precision,
            strategy=config.parallel.strategy,
            num_devices=config.parallel.processes,
            device=self.device.name,
            device_bytes=self.device.memory_bytes,
            global_batch_size=config.global_batch_size,
            num_steps=config.num_steps,
            params_encoder=self.costs["encoder"].params,
            params_total=total.params,
            params_teacher=self.teacher.params,
            flops_per_image=total.train_flops,
            teacher_flops_per_image=self.teacher.forward_flops,
            strategies=[self._strategy(strategy) for strategy in strategies],
            speed=speed,
            step_seconds=step_seconds,
            disk=_disk(config, encoder=self.costs["encoder"].params, total=total.params),
        )

    def _build(self) -> Objective:
        objective = build_of(self.config, teacher_shape_of(self.config))
        checkpoint_blocks(objective, self.config.parallel.activation_checkpointing_every)
        return objective

    def _meta_batch(self) -> dict[str, torch.Tensor]:
        with torch.device("meta"):
            return shapes_of_batch(self.config, _TRACED_SIZES[0])

    @cached_property
    def _courses(self) -> Courses:
        dtype = _DTYPES[self.config.precision]
        small, large = (
            course_of(self._build, lambda size=size: shapes_of_batch(self.config, size), dtype)  # type: ignore[misc]
            for size in _TRACED_SIZES
        )
        return Courses(small, large, _TRACED_SIZES)

    def _stage_courses(self, bounds: list[int]) -> list[Courses]:
        dtype = _DTYPES[self.config.precision]
        small, large = (
            stage_courses(self._build, lambda size=size: shapes_of_batch(self.config, size), bounds, dtype)  # type: ignore[misc]
            for size in _TRACED_SIZES
        )
        return [Courses(*pair, _TRACED_SIZES) for pair in zip(small, large, strict=True)]

    def _strategy(self, strategy: str) -> StrategyPlan:
        variant, stages = self._variant(strategy)
        micro = variant.micro_batch_size
        try:
            variant.validate()
            settings = deepspeed_config(variant)
            bounds = stage_bounds(variant) if stages > 1 else []
        except ValueError as error:
            return StrategyPlan(strategy, stages, micro, peak=None, refused=str(error))
        courses = self._stage_courses(bounds) if stages > 1 else [self._courses]
        share = variant.global_batch_size // variant.data_parallel_size
        weights = self._stage_weights(bounds) if stages > 1 else [_weights(self.objective)]

        def peak(size: int) -> Moment:
            return max(
                (
                    self._peak(weights[stage], courses[stage].at(size), settings, variant, size, stage)
                    for stage in range(stages)
                ),
                key=lambda moment: moment.total,
            )

        fitting = [size for size in _divisors(share) if peak(size).total <= self.device.usable_bytes]
        return StrategyPlan(strategy, stages, micro, peak(micro), max(fitting, default=0))

    def _variant(self, strategy: str) -> tuple[RunConfig, int]:
        """Return the run under another strategy: overrides of DeepSpeed's keys belong to its own."""
        parallel = self.config.parallel
        if strategy == parallel.strategy:
            return self.config, parallel.stages
        stages = _DEFAULT_STAGES if strategy == "pipeline" else 1
        changed = replace(parallel, strategy=strategy, stages=stages, deepspeed={})
        variant = replace(self.config, parallel=changed)
        if changed.processes % stages:
            return variant, stages  # refused by its validation
        # Without stages, or with them, a device's share of the global batch is another.
        share = variant.global_batch_size // variant.data_parallel_size
        sizes = [size for size in _divisors(share) if size <= self.config.micro_batch_size]
        return replace(variant, micro_batch_size=max(sizes, default=1)), stages

    def _peak(
        self, weights: Weights, course: Course, settings: dict[str, Any], variant: RunConfig, size: int, stage: int
    ) -> Moment:
        ranks = variant.data_parallel_size
        accumulation = variant.global_batch_size // (size * ranks)
        waiting = min(variant.parallel.stages - stage, accumulation) - 1
        spread = Spread(settings["zero_optimization"], ranks, self.element_bytes, accumulation > 1, self.device.is_cpu)
        moments = moments_of(weights, course.with_kept(waiting), spread)
        # Every process builds the whole objective before it keeps its stage.
        others = _FP32 * (total_cost(self.costs).params - weights.total)
        moments = [moment.plus(parameters=others) if moment.name == "start" else moment for moment in moments]
        moment = max(moments, key=lambda moment: moment.total)
        if stage == 0:
            moment = moment.plus(teacher=self.teacher.params * self._teacher_element_bytes())
        if self.device.is_cpu:
            moment = moment.plus(buffers=process_bytes(settings["zero_optimization"]["stage"]))
        return moment

    def _teacher_element_bytes(self) -> int:
        default = "fp32" if self.device.is_cpu else "bf16"
        return _DTYPES[self.config.teacher.precision or default].itemsize

    def _stage_weights(self, bounds: list[int]) -> list[Weights]:
        layers = self.objective.pipeline_layers()
        return [_weights(torch.nn.Sequential(*layers[start:stop])) for start, stop in pairwise(bounds)]

    def _step_seconds(self) -> tuple[Speed, float | None]:
        config = self.config
        flops: float = total_cost(self.costs).train_flops + self.teacher.forward_flops
        if config.parallel.activation_checkpointing_every:  # what is not kept is computed twice
            flops = training_flops_per_sample(self._build, self._meta_batch()) + self.teacher.forward_flops
        speed = expected_speed(self.device.name, config.precision, flops * config.micro_batch_size)
        if self.device.peak_tflops is None:
            return speed, None
        per_device = flops * config.global_batch_size / config.parallel.processes
        seconds = per_device / (speed.fraction * self.device.peak_tflops * 1e12)
        return speed, seconds * bubble(config.parallel.stages, config.accumulation_steps)


def _disk(config: RunConfig, *, encoder: int, total: int) -> Disk:
    """Return the disk use of a run with `encoder` and `total` parameters."""
    kept = config.checkpoints
    moments = 2 * _FP32 * total
    # Under ZeRO the optimizer holds master weights; the module is saved beside them where it is whole.
    masters = 0 if config.parallel.strategy == "zero0" else _FP32 * total
    module = 0 if config.parallel.strategy.startswith("zero3") else _DTYPES[config.precision].itemsize * total
    whole, weights = moments + masters + module, masters + module
    numbered = config.num_steps // kept.keep_every if kept.keep_every else 0
    newest = min(kept.keep_last, config.num_steps // kept.every + 1 if kept.every else 1)
    full, bare = {
        "all": (numbered + newest, 0),
        "newest": (newest, numbered),
        "until_finished": (0, numbered + newest),
    }[kept.keep_optimizer_state]
    full += sum(step < config.num_steps for step in kept.also_at)
    copy = (moments + masters) / config.data_parallel_size + module
    return Disk(
        checkpoint=whole,
        without_moments=weights,
        kept=full * whole + bare * weights + _FP32 * encoder,
        copy=copy if kept.background else 0.0,
    )


def _weights(module: torch.nn.Module) -> Weights:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return Weights(
        matrices=tuple(parameter.numel() for parameter in trained if parameter.ndim > 1),
        vectors=tuple(parameter.numel() for parameter in trained if parameter.ndim <= 1),
    )


def _divisors(number: int) -> list[int]:
    small = [size for size in range(1, isqrt(number) + 1) if number % size == 0]
    return sorted({*small, *(number // size for size in small)})
