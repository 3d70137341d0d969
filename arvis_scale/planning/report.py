"""A plan as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Column, Table

from arvis_scale.planning.plan import RunPlan, StrategyPlan
from arvis_scale.planning.zero_memory import PARTS

_GB = 1e9


def render_run(plan: RunPlan) -> Iterator[RenderableType]:
    """Yield the tables and remarks of one run's plan."""
    yield _summary(plan)
    yield _memory(plan)
    for strategy in plan.strategies:
        if strategy.refused:
            yield f"{strategy.strategy}: {strategy.refused}"
    yield (
        f"Memory is that of the fullest device at its fullest moment, in GB (10^9 bytes); {plan.device} has "
        f"{plan.device_bytes / _GB:.0f}, of which tensors may take 92%. Largest micro batch: of those that divide a "
        f"device's share of the global batch."
    )
    yield (
        f"Step time: {plan.speed.fraction:.0%} of the device's peak ({plan.speed.source}); communication not included."
    )


def _summary(plan: RunPlan) -> Table:
    table = Table(Column("run", no_wrap=True), _number(plan.name))
    table.add_row("model", f"{plan.objective} {plan.preset}, {plan.precision}")
    table.add_row("parameters: encoder, all", f"{_count(plan.params_encoder)}, {_count(plan.params_total)}")
    table.add_row("GFLOPs per image, forward and backward", f"{plan.flops_per_image / 1e9:,.1f}")
    if plan.params_teacher or plan.teacher_flops_per_image:
        teacher = f"{_count(plan.params_teacher)}, {plan.teacher_flops_per_image / 1e9:,.1f} GFLOPs"
        table.add_row("teacher: parameters, forward pass", teacher)
    table.add_row("devices", f"{plan.num_devices} x {plan.device}")
    table.add_row("steps of images", f"{plan.num_steps:,} of {plan.global_batch_size:,}")
    table.add_row("seconds per step", "unknown" if plan.step_seconds is None else f"{plan.step_seconds:.3g}")
    table.add_row("device hours", _hours(plan.device_hours))
    table.add_row("checkpoint, without optimizer state", _pair(plan.disk.checkpoint, plan.disk.without_moments))
    table.add_row("disk for all that is kept", f"{_gigabytes(plan.disk.kept)} GB")
    if plan.disk.copy:
        copy = f"{_gigabytes(plan.disk.copy)} GB of host memory"
        table.add_row("copy while a checkpoint is written", copy)
    return table


def _memory(plan: RunPlan) -> Table:
    names = [
        strategy.strategy.replace("_", "\n") + (f"\n{strategy.stages}" if strategy.stages > 1 else "")
        for strategy in plan.strategies
    ]
    chosen = plan.chosen
    table = Table(
        Column("GB per device", no_wrap=True),
        *(
            Column(name, justify="right", style="bold" if strategy is chosen else "")
            for name, strategy in zip(names, plan.strategies, strict=True)
        ),
        pad_edge=False,
        collapse_padding=True,
    )
    for part in PARTS:
        table.add_row(part, *(_gigabytes(s.peak.parts[part]) if s.peak else "" for s in plan.strategies))
    table.add_section()
    table.add_row("peak", *(_gigabytes(s.peak.total) if s.peak else "refused" for s in plan.strategies))
    table.add_row("reached in", *(s.peak.name if s.peak else "" for s in plan.strategies))
    table.add_row("host memory", *(_gigabytes(s.peak.host) if s.peak and s.peak.host else "" for s in plan.strategies))
    table.add_row("micro batch", *(str(s.micro_batch_size) if s.peak else "" for s in plan.strategies))
    table.add_row("largest that fits", *(_largest(s) for s in plan.strategies))
    return table


def _largest(strategy: StrategyPlan) -> str:
    if strategy.peak is None:
        return ""
    return str(strategy.largest_micro_batch or "none")


def _number(name: str) -> Column:
    return Column(name, justify="right")


def _count(number: int) -> str:
    return f"{number / 1e6:,.1f}M" if number >= 1e5 else f"{number:,}"


def _gigabytes(number: float) -> str:
    return f"{number / _GB:.2f}" if number < 100 * _GB else f"{number / _GB:,.0f}"


def _pair(first: float, second: float) -> str:
    return f"{_gigabytes(first)} GB, {_gigabytes(second)} GB"


def _hours(hours: float | None) -> str:
    return "unknown" if hours is None else f"{hours:,.3g}" if hours < 1000 else f"{hours:,.0f}"
