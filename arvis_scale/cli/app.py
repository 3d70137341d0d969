"""The command line's frame: the groups of commands, what they share, where they print."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

app = typer.Typer(
    help="From a folder of images to efficiency curves of autoregressive image pretraining.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
shards_app = typer.Typer(help="Image folders to WebDataset shards.", no_args_is_help=True)
sweep_app = typer.Typer(help="Grids of runs.", no_args_is_help=True)
weights_app = typer.Typer(help="Weights from elsewhere in, weights for others out.", no_args_is_help=True)
app.add_typer(shards_app, name="shards")
app.add_typer(sweep_app, name="sweep")
app.add_typer(weights_app, name="weights")

console = Console(soft_wrap=True, highlight=False)
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value changes of the configuration", show_default=False)
]
StudyFolder = Annotated[Path, typer.Argument(metavar="DIR", help="study folder", show_default=False)]


@contextmanager
def progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield a function that shows (stage, images done, their total where it is known)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bars_shown:
        bars: dict[str, TaskID] = {}

        def advance(stage: str, done: int, total: int | None) -> None:
            if stage not in bars:
                bars[stage] = bars_shown.add_task(stage, total=total)
            bars_shown.update(bars[stage], completed=done)

        yield advance
