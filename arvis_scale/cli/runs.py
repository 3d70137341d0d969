"""`arvis-scale train` and `probe`: one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from arvis_scale.cli.app import Overrides, app, console


@app.command()
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a recipe")],
    overrides: Overrides = None,
) -> None:
    """Train one run; started again, it goes on from its last checkpoint.

    Ends with 0 when completed, 2 on bad input, 65 when a guard stopped it, 70 when it hung, 75 when preempted: start it
    again (docs/guards.md).

    Example: `arvis-scale train digits objective=xtra name=first output=runs/first data.shards=shards/digits`
    """
    from arvis_scale.config import load_config
    from arvis_scale.engine.exit_status import FAILED
    from arvis_scale.engine.launcher import is_first_process, train_here
    from arvis_scale.engine.run_folder import RunFolder

    run = load_config(config, overrides or [])
    status = train_here(run, ["train", config, *(overrides or [])])
    lines = [f"{status.state} at step {status.step} of {status.num_steps}: {run.output}"]
    if status.state != "completed":
        lines.append(status.reason)
    elif probes := RunFolder(run.output).read_result()["probes"]:
        lines.append(_probe_line(probes["linear"]))
    if is_first_process():
        console.print("\n".join(lines), markup=False)
    if status.state != "completed":
        raise typer.Exit(FAILED if status.exit_status is None else status.exit_status)


@app.command()
def probe(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a completed run")],
    overrides: Overrides = None,
    kind: Annotated[str, typer.Option(help="kind of probe: linear")] = "linear",
) -> None:
    """Measure a run's encoder on labelled images again.

    Example: `arvis-scale probe runs/first probe_data.shards=shards/digits`
    """
    if kind != "linear":
        raise ValueError(f"--kind {kind!r} is not known; one of linear")
    from arvis_scale.engine.result import probe_again

    console.print(_probe_line(probe_again(run, overrides or [])["linear"]), markup=False)


def _probe_line(result: dict[str, Any]) -> str:
    return (
        f"linear probe: accuracy {result['accuracy']:.4f} (95% interval {result['accuracy_low']:.4f} to "
        f"{result['accuracy_high']:.4f}) on {result['num_test']:,} images"
    )
