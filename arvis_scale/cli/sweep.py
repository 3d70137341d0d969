"""`arvis-scale sweep ...`: grids of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arvis_scale.cli.app import Overrides, sweep_app
from arvis_scale.cli.sweep_study import Device, DryRun, Yes, report_submission, start_study


@sweep_app.command("submit")
def sweep_submit(
    study_file: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="study file")],
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(help="study folder [default: runs/NAME]", show_default=False)] = None,
    dry_run: DryRun = False,
    device: Device = None,
    yes: Yes = False,
) -> None:
    """Start the runs of a study that are missing or failed.

    Example: `arvis-scale sweep submit my_study.yaml data.shards=shards/photos`
    """
    from arvis_scale.launch.studies.study import load_study

    study = load_study(study_file, output, overrides or [])
    submission = start_study(study, dry_run=dry_run, device=device, yes=yes)
    if submission is not None:
        report_submission(study.output, submission)
