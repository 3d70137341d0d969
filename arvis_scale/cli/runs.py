"""`arvis-scale train`, `probe` and `finetune`: one run."""

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

    Ends with 0 when completed, 2 on bad input, 65 when a guard stopped it, 70 when it hung, 71 when out of memory, 75
    when preempted: start it again (docs/guards.md).

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
        lines += _probe_lines(probes)
    if is_first_process():
        console.print("\n".join(lines), markup=False)
    if status.state != "completed":
        raise typer.Exit(FAILED if status.exit_status is None else status.exit_status)


@app.command()
def probe(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a completed run")],
    overrides: Overrides = None,
    kind: Annotated[
        str | None,
        typer.Option(help="linear, attentive or knn [default: the run's probe_data.kinds]", show_default=False),
    ] = None,
) -> None:
    """Measure a run's encoder on labelled images again.

    Example: `arvis-scale probe runs/first --kind attentive probe_data.shards=shards/digits`
    """
    from arvis_scale.engine.result import probe_again

    kinds = [] if kind is None else [f"probe_data.kinds=[{kind}]"]
    console.print("\n".join(_probe_lines(probe_again(run, [*(overrides or []), *kinds]))), markup=False)


@app.command()
def finetune(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a completed run")],
    overrides: Overrides = None,
) -> None:
    """Train a run's encoder and a classifier together on labelled images, and measure them.

    Example: `arvis-scale finetune runs/first finetune.epochs=50 probe_data.shards=shards/digits`
    """
    from arvis_scale.engine.finetune import FINETUNED_NAME, finetune_run

    result = finetune_run(run, overrides or [])
    console.print(f"{_accuracy_line('fine-tuned', result)}\nweights: {run / FINETUNED_NAME}", markup=False)


def _probe_lines(probes: dict[str, Any]) -> list[str]:
    """Return a line for each probe; those by layer are in result.json."""
    return [_accuracy_line(f"{kind} probe", result) for kind, result in probes.items() if isinstance(result, dict)]


def _accuracy_line(what: str, result: dict[str, Any]) -> str:
    return (
        f"{what}: accuracy {result['accuracy']:.4f} (95% interval {result['accuracy_low']:.4f} to "
        f"{result['accuracy_high']:.4f}) on {result['num_test']:,} images"
    )
