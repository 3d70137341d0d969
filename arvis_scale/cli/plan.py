"""`arvis-scale plan`: what a run will cost, before anything is started."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arvis_scale.cli.app import Overrides, app, console

if TYPE_CHECKING:
    from arvis_scale.config import RunConfig

# Keys that a run must have and its plan does not need.
_UNNEEDED = {"name": "plan", "output": "plan", "data.shards": "none"}


@app.command()
def plan(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a recipe")],
    overrides: Overrides = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="devices [default: parallel.processes]", show_default=False)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, a100, h100, h200, ... [default: this machine's]", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="also build the model without memory and check every shape and share")
    ] = False,
) -> None:
    """Show parameters, memory, time and disk of a run under every strategy, without starting it.

    With `--devices` the micro batch is lowered, where it must be, to a divisor of a device's share of the global batch.

    Example: `arvis-scale plan xtra_h14_in21k --devices 64 --device h200`
    """
    from arvis_scale.engine.run_plan import plan_run
    from arvis_scale.engine.teacher_tokens import manifest_of, views_remark
    from arvis_scale.planning.report import render_run

    run = load_planned(config, overrides or [], devices)
    if dry_run:
        from arvis_scale.engine.dry_run import dry_run_of

        lines = dry_run_of(run)
        if not as_json:
            console.print("\n".join(lines), markup=False)
    planned = plan_run(run, device)
    if as_json:
        console.print(json.dumps({"schema_version": 1, **asdict(planned), "device_hours": planned.device_hours}))
        return
    for part in render_run(planned):
        console.print(part, markup=False)
    tokens = manifest_of(run)
    if tokens is not None:
        console.print(views_remark(run, tokens), markup=False)


def load_planned(config: str, overrides: list[str], devices: int | None) -> RunConfig:
    """Return the run of CONFIG spread over `devices`, its micro batch the largest one up to its own that divides."""
    from dataclasses import replace

    from arvis_scale.config import build_config, load_yaml, parse_override, recipe_path

    path = recipe_path(config)
    values = load_yaml(path)
    changes = dict(map(parse_override, overrides))
    given = {key: value for key, value in _UNNEEDED.items() if not _has(values, key)}
    if devices is None:
        return build_config(values, {**given, **changes}, str(path))
    wanted = changes.get("micro_batch_size", values.get("micro_batch_size", 256))
    spread = {"parallel.processes": devices, "micro_batch_size": 1}
    run = build_config(values, {**given, **changes, **spread}, str(path))
    share = run.global_batch_size // run.data_parallel_size
    if not isinstance(wanted, int) or wanted < 1:
        raise ValueError(f"micro_batch_size={wanted} must be a whole number, at least 1")
    return replace(run, micro_batch_size=max(size for size in range(1, wanted + 1) if share % size == 0))


def _has(values: dict[str, Any], key: str) -> bool:
    section, _, leaf = key.rpartition(".")
    return leaf in (values.get(section) or {} if section else values)
