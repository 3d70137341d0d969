"""`sweep submit --dry-run`: the runs of a study and what they will cost, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Column, Table

from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.studies.budget import RunCost, StudyCost
from arvis_scale.launch.studies.study import Study

_COLUMNS = ("parameters", "steps", "FLOPs", "devices", "device hours", "GB on disk", "branches at step")


def render_cost(study: Study, cost: StudyCost) -> Iterator[RenderableType]:
    """Yield the table of a study's runs and the lines below it."""
    table = Table(Column("run", no_wrap=True), *(Column(name, justify="right", no_wrap=True) for name in _COLUMNS))
    for run in cost.runs:
        table.add_row(run.run.config.name, *_numbers(run))
    table.add_section()
    total = (f"{cost.flops:.3g}", "", _hours(cost.device_hours), _gigabytes(cost.disk_bytes))
    table.add_row(f"{len(cost.runs)} runs", "", "", *total)
    yield table
    done = sum(RunFolder(run.config.output).status().state == "completed" for run in study.runs)
    budget = study.budget.device_hours
    yield (
        f"{_hours(cost.device_hours)} device hours of {cost.device}, "
        f"{'without a budget' if budget is None else f'budget {budget:g}'}; {done} of {len(study.runs)} runs have "
        "completed, references included. Probes, validation, checkpoints and communication are not in the hours."
    )


def _numbers(cost: RunCost) -> tuple[str, ...]:
    config = cost.run.config
    return (
        f"{cost.params:,}",
        f"{config.num_steps - cost.run.first_step:,}",
        f"{cost.flops:.3g}",
        str(cost.num_devices),
        _hours(cost.device_hours),
        _gigabytes(cost.disk_bytes),
        f"{cost.run.first_step:,}" if cost.run.after else "",
    )


def _hours(hours: float | None) -> str:
    return "unknown" if hours is None else f"{hours:,.3g}"


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:,.3g}"
