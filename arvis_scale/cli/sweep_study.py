"""`arvis-scale sweep submit --dry-run` and `extend`: what a study file asks for, shown before it is started."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from arvis_scale.cli.app import StudyFolder, console, sweep_app
from arvis_scale.cli.sweep_watch import sweep_status
from arvis_scale.launch.sweep_file import read_sweep

if TYPE_CHECKING:
    from arvis_scale.launch.studies.study import Study
    from arvis_scale.launch.submit import Submission

_WIDEST = 1000  # characters of a table's line

DryRun = Annotated[bool, typer.Option("--dry-run", help="show every run and what all will cost; start nothing")]
Device = Annotated[
    str | None, typer.Option(help="for --dry-run: h100, h200, ... [default: the cluster's]", show_default=False)
]
Yes = Annotated[bool, typer.Option("--yes", help="do not ask before a study with completed runs is changed")]


@sweep_app.command("extend")
def sweep_extend(
    folder: StudyFolder,
    additions: Annotated[list[str], typer.Argument(metavar="AXIS+=VALUE...", help="further values of its axes")],
    dry_run: DryRun = False,
    device: Device = None,
) -> None:
    """Add values to the axes of a study and start the runs that they give.

    `seed=[2,3]` adds two values, `seed+=2` one; the study's own copy of its file is what changes.

    Example: `arvis-scale sweep extend runs/demo unique_images+=500`
    """
    from arvis_scale.launch.studies.study import STUDY_NAME, load_study

    study_file = folder / STUDY_NAME
    if not study_file.is_file():
        raise ValueError(f"{folder} is not a study folder: {STUDY_NAME} is missing (run `arvis-scale sweep submit`)")
    study = load_study(study_file, folder, additions=additions)
    submission = start_study(study, dry_run=dry_run, device=device, yes=True)
    if submission is not None:
        report_submission(folder, submission)


def start_study(study: Study, *, dry_run: bool, device: str | None, yes: bool) -> Submission | None:
    """Show what changes, and start what is missing or failed; of a dry run show what it costs, and return None."""
    from arvis_scale.launch.submit import submit

    _confirm_changes(study, yes=yes or dry_run)
    if not dry_run:
        return submit(study, ["arvis-scale", *sys.argv[1:]])
    _show_cost(study, device)
    return None


def report_submission(folder: Path, submission: Submission) -> None:
    """Say what a submission came to; status 1 when it waited and a run did not complete."""
    num_runs = len(read_sweep(folder).runs)
    console.print(f"{num_runs - len(submission.unfinished)} of {num_runs} runs completed: {folder}", markup=False)
    if submission.waited and submission.unfinished:
        sweep_status(folder)
        raise typer.Exit(1)
    if not submission.waited:
        numbers = ", ".join(sorted({job.partition("_")[0] for job in submission.jobs.values()}, key=int))
        console.print(f"{len(submission.jobs)} runs submitted" + (f" as Slurm jobs {numbers}" if numbers else ""))
        if submission.report_job:
            console.print(f"the report follows as job {submission.report_job}")


def _confirm_changes(study: Study, *, yes: bool) -> None:
    from arvis_scale.launch.studies.study_changes import study_changes

    changes = study_changes(study)
    if changes is None:
        return
    for line in changes.lines():
        console.print(line, markup=False)
    if yes or not changes.num_completed:
        return
    what = f"{changes.num_completed} runs of the study in {study.output} have completed"
    if not sys.stdin.isatty():
        raise ValueError(f"{what}, and its file has changed as shown; give --yes to go on, or another --output")
    typer.confirm(f"{what}. Change the study?", abort=True)


def _show_cost(study: Study, device: str | None) -> None:
    from arvis_scale.launch.run_checks import check_runs
    from arvis_scale.launch.studies.budget import check_budget, study_cost
    from arvis_scale.launch.studies.dry_run_table import render_cost

    check_runs(study)
    cost = study_cost(study, device)
    # As wide as the table is, in a pipe too: a run's name that is cut off names no run.
    wide = Console(width=_WIDEST, soft_wrap=True, highlight=False)
    for part in render_cost(study, cost):
        wide.print(part, markup=False)
    check_budget(study, cost)
