"""`arvis-scale sweep cancel`, `resume` and `tensorboard`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from arvis_scale.cli.app import StudyFolder, console, progress, sweep_app
from arvis_scale.cli.sweep_study import report_submission

if TYPE_CHECKING:
    from arvis_scale.launch.stopping import Cancelled

Runs = Annotated[
    list[str] | None, typer.Argument(metavar="[RUN]...", help="names of runs [default: all]", show_default=False)
]


@sweep_app.command("cancel")
def sweep_cancel(folder: StudyFolder, runs: Runs = None) -> None:
    """Stop runs of a study, or all of it: they are asked to save first.

    Ends with 1 when a job still lives after two minutes.

    Example: `arvis-scale sweep cancel runs/demo`
    """
    from arvis_scale.launch.stopping import cancel_runs

    with console.status("waiting until the jobs have saved and ended"):
        cancelled = cancel_runs(folder, runs or [])
    if not cancelled:
        console.print("nothing to cancel: all of these runs are completed, failed or cancelled already")
        return
    console.print("\n".join(_cancel_lines(cancelled)), markup=False)
    if any(run.is_living for run in cancelled):
        raise typer.Exit(1)


@sweep_app.command("resume")
def sweep_resume(
    folder: StudyFolder,
    runs: Runs = None,
    also_given_up: Annotated[
        bool,
        typer.Option("--also-given-up", help="also runs that failed again and again; named ones are always started"),
    ] = False,
) -> None:
    """Start the runs of a study that failed, were lost, cancelled or never begun; they go on from their checkpoints.

    Example: `arvis-scale sweep resume runs/demo`
    """
    from arvis_scale.launch.resuming import resume

    resumed = resume(folder, ["arvis-scale", *sys.argv[1:]], runs or [], also_given_up=also_given_up)
    if resumed.given_up:
        console.print(
            f"{len(resumed.given_up)} runs were given up and stay so (--also-given-up, or name them): "
            f"{', '.join(resumed.given_up)}",
            markup=False,
        )
    if resumed.submission is None:
        console.print("nothing to resume")
        return
    report_submission(folder, resumed.submission)


@sweep_app.command("tensorboard")
def sweep_tensorboard(
    folder: StudyFolder,
    port: Annotated[int, typer.Option(help="on this machine; 0: any that is free")] = 6006,
    images: Annotated[bool, typer.Option("--images", help="the runs' pictures in place of their curves")] = False,
) -> None:
    """Show a study in TensorBoard, at this machine's own address alone, until Ctrl-C.

    Example: `arvis-scale sweep tensorboard runs/demo`
    """
    from arvis_scale.launch.tensorboard_view.server import keep_up, start_server
    from arvis_scale.launch.tensorboard_view.sweep_view import SweepView

    with SweepView(folder) as view:
        with progress() as advance:
            view.update(lambda done, total: advance("runs", done, total))
        address = start_server(view.images if images else view.scalars, port)
        console.print(f"TensorBoard: {address} (Ctrl-C ends it)")
        try:
            keep_up(view)
        except KeyboardInterrupt:
            return


def _cancel_lines(cancelled: list[Cancelled]) -> list[str]:
    ended = [run for run in cancelled if not run.is_living]
    lost = [run for run in ended if run.lost_steps]
    begun = [run for run in ended if run.step]
    lines = [
        f"{len(ended)} runs cancelled: {len(begun) - len(lost)} saved at their last step, {len(ended) - len(begun)} "
        f"had done none, {len(lost)} lost steps that `sweep resume` does again"
    ]
    lines += [f"{run.name}: steps {run.saved_step + 1} to {run.step} are lost" for run in lost]
    living = [run.name for run in cancelled if run.is_living]
    if living:
        lines.append(f"{len(living)} runs have jobs that still live; look at `sweep logs`: {', '.join(living)}")
    return lines
