"""`arvis-scale sweep ...`: grids of runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from arvis_scale.cli.app import Overrides, StudyFolder, console, sweep_app


@sweep_app.command("submit")
def sweep_submit(
    study_file: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="study file")],
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(help="study folder [default: runs/NAME]", show_default=False)] = None,
) -> None:
    """Start the runs of a study that are missing or failed.

    Example: `arvis-scale sweep submit my_study.yaml data.shards=shards/photos`
    """
    from arvis_scale.launch.study import load_study
    from arvis_scale.launch.submit import submit

    study = load_study(study_file, output, overrides or [])
    unfinished = submit(study, ["arvis-scale", *sys.argv[1:]])
    console.print(f"{len(study.runs) - len(unfinished)} of {len(study.runs)} runs completed: {study.output}")
    if unfinished:
        sweep_status(study.output)
        raise typer.Exit(1)


@sweep_app.command("status")
def sweep_status(folder: StudyFolder) -> None:
    """Show the state of every run of a study.

    Example: `arvis-scale sweep status runs/demo`
    """
    from arvis_scale.launch.status import study_states

    runs = study_states(folder)
    table = Table(Column("run", no_wrap=True), "state", "step", "attempts", "linear probe")
    for run in runs:
        accuracy = "" if run.accuracy is None else f"{run.accuracy:.4f}"
        steps = f"{run.status.step}/{run.status.num_steps}" if run.status.num_steps else ""
        table.add_row(run.name, run.status.state, steps, str(run.status.attempt), accuracy)
    console.print(table)
    for run in runs:
        if run.status.reason:
            console.print(f"{run.name}: {run.status.reason}", markup=False)
