"""`arvis-scale demo`: everything, small."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arvis_scale.cli.app import Overrides, app, console
from arvis_scale.cli.sweep_watch import sweep_status


@app.command()
def demo(
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option(help="folder to work in")] = Path("runs/demo"),
) -> None:
    """Do everything, small, on built-in real images: shards, models, curves, report.

    Example: `arvis-scale demo`
    """
    from arvis_scale.demo import run_demo

    run_demo(output, console, overrides or [])
    sweep_status(output)
    console.print(f"report:      {output / 'report.html'}")
    console.print(f"TensorBoard: arvis-scale sweep tensorboard {output}")
