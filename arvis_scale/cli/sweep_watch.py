"""`arvis-scale sweep status` and `logs`: what the runs of a study do."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from arvis_scale.cli.app import StudyFolder, console, sweep_app

if TYPE_CHECKING:
    from arvis_scale.launch.status.study_status import RunState, StudyStatus, StudyWatch

# A page of runs: those of a larger study that somebody has to look at come first, the others are counted.
_MAX_ROWS = 100
_MAX_REMARKS = 20
_REFRESH_SECONDS = 5.0
_PIPE_WIDTH = 500
_MIN_NAME = 20
_COLORS = {
    "failed": "red",
    "lost": "red",
    "unreadable": "red",
    "stale": "yellow",
    "running": "cyan",
    "completed": "green",
}


@sweep_app.command("status")
def sweep_status(
    folder: StudyFolder,
    watch: Annotated[
        bool, typer.Option("--watch", help="look again every few seconds, until Ctrl-C or the end")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON, every run")] = False,
    all_runs: Annotated[bool, typer.Option("--all", help=f"every run, also of more than {_MAX_ROWS}")] = False,
) -> None:
    """Show what every run of a study does, by its folder and by Slurm.

    Example: `arvis-scale sweep status runs/demo --watch`
    """
    from arvis_scale.launch.status.study_status import StudyWatch, study_status

    if watch and as_json:
        raise ValueError("--watch shows a table, --json does not go with it; call --json again and again instead")
    if watch:
        _watch(StudyWatch(folder))
        return
    status = study_status(folder)
    if as_json:
        print(json.dumps(status.to_json(), allow_nan=False))
        return
    shown, left_out = _first_runs(status, len(status.runs) if all_runs else _MAX_ROWS)
    _screen().print(_table(shown), *_lines(status, shown, left_out, most=_MAX_REMARKS), sep="\n", soft_wrap=True)


@sweep_app.command("logs")
def sweep_logs(
    folder: StudyFolder,
    run: Annotated[str, typer.Argument(metavar="RUN", help="name of a run", show_default=False)],
    follow: Annotated[bool, typer.Option("--follow", help="go on until its job has ended")] = False,
    job: Annotated[str | None, typer.Option(help="an earlier job of the run [default: its last]")] = None,
) -> None:
    """Print what all processes of a run's job have said.

    Example: `arvis-scale sweep logs runs/demo xtra-nano-u100-n20000-s0 --follow`
    """
    from arvis_scale.launch.job_logs import RunLog

    log = RunLog(folder, run, job)
    console.print(log.headline, style="dim", markup=False)
    try:
        for line in log.lines(follow=follow):
            print(line, flush=follow)
    except KeyboardInterrupt:
        return


def _watch(watch: StudyWatch) -> None:
    """Show the study until nothing more happens by itself; Ctrl-C ends it before."""
    screen = _screen()
    try:
        with Live(console=screen, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                status = watch.look()
                runs, left_out = _first_runs(status, min(_MAX_ROWS, screen.height))
                # The table comes last: what does not fit on the screen is cut at its end.
                live.update(Group(*_lines(status, runs, left_out, most=3), _table(runs)), refresh=True)
                if status.is_over:
                    break
                time.sleep(_REFRESH_SECONDS)
    except KeyboardInterrupt:
        return
    if not screen.is_terminal:
        screen.line()


def _screen() -> Console:
    """Return where tables go; in a pipe there is no width that they would have to fit."""
    return Console(highlight=False, width=None if console.is_terminal else _PIPE_WIDTH)


def _first_runs(status: StudyStatus, max_rows: int) -> tuple[list[RunState], int]:
    """Return at most so many runs, of more those that somebody has to look at, and the number of the others."""
    runs = list(status.runs)
    if len(runs) <= max_rows:
        return runs, 0
    order = {state: number for number, state in enumerate(status.totals)}
    runs.sort(key=lambda run: (not run.disagreement, order[run.state]))
    return runs[:max_rows], len(runs) - max_rows


def _lines(status: StudyStatus, runs: list[RunState], left_out: int, *, most: int) -> list[str]:
    """Return what is said beside the table; of disagreements and reasons at most so many."""
    lines = _summary(status)
    if left_out:
        lines.append(f"[dim]{left_out:,} further runs: --all or --json shows them[/]")
    return [*lines, *_disagreements(status, most), *_reasons(runs)[:most]]


def _table(runs: list[RunState]) -> Table:
    """Return the runs as a table, without the columns in which none has a word."""
    columns: dict[str, list[str]] = {
        "run": [escape(run.name) for run in runs],
        "state": [_colored_state(run) for run in runs],
        "step": [f"{run.step:,}/{run.num_steps:,}" if run.num_steps else "" for run in runs],
        "samples/s": [_number(run.samples_per_second, ",.0f") for run in runs],
        "loss": [_number(run.loss, ".4f") for run in runs],
        "eta": [_duration(run.seconds_left) for run in runs],
        "attempts": [str(run.attempts) for run in runs],
        "node": [escape(run.node) for run in runs],
        "heartbeat": [_heartbeat(run) for run in runs],
        "linear probe": [_number(run.accuracy, ".4f") for run in runs],
    }
    table = Table()
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    for name in shown:
        # A name is folded where the screen is narrow, never cut.
        table.add_column(name, overflow="fold", no_wrap=name != "run", min_width=_MIN_NAME if name == "run" else None)
    for row in zip(*shown.values(), strict=True):
        table.add_row(*row)
    return table


def _colored_state(run: RunState) -> str:
    return f"[{_COLORS.get(run.state, 'default')}]{run.state}[/]{' *' if run.disagreement else ''}"


def _heartbeat(run: RunState) -> str:
    return f"{_duration(run.heartbeat_age)} ago" if run.state in ("running", "stale", "lost") and run.attempts else ""


def _summary(status: StudyStatus) -> list[str]:
    counts = ", ".join(f"{count:,} {state}" for state, count in status.totals.items())
    lines = [f"{len(status.runs):,} runs of [bold]{escape(status.study)}[/]: {counts}"]
    hours = f"{status.device_hours:,.2f} device hours used"
    if status.budget.device_hours is not None:
        hours += f" of a budget of {status.budget.device_hours:,.2f}"
    if status.budget.predicted_device_hours is not None:
        hours += f"; {status.budget.predicted_device_hours:,.2f} were predicted for the whole study"
    lines.append(hours)
    if status.not_asked:
        lines.append(f"[yellow]this is what the folders say, Slurm did not answer:[/] {escape(status.not_asked)}")
    if status.is_idle and any(run.state != "completed" for run in status.runs):
        lines.append("nothing works on this study now: `arvis-scale sweep resume` goes on")
    return lines


def _disagreements(status: StudyStatus, most: int) -> list[str]:
    runs = status.disagreements
    lines = [f"[yellow]* {escape(run.name)}: {escape(run.disagreement)}[/]" for run in runs[:most]]
    if len(runs) > len(lines):
        lines.append(f"[yellow]* {len(runs) - len(lines):,} further runs are not what their folders say: --json[/]")
    return lines


def _reasons(runs: list[RunState]) -> list[str]:
    """Return how runs ended last and what they wait for, each once."""
    of_reason: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        if run.reason and run.state != "completed":
            of_reason[run.reason].append(run.name)
        if run.waits_for:
            of_reason[f"waits, Slurm says {run.waits_for}"].append(run.name)
    lines = []
    for reason, names in of_reason.items():
        others = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        lines.append(f"{escape(names[0])}{others}: {escape(reason)}")
    return lines


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))
