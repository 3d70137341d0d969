"""`arvis-scale shards tokenize`: a teacher's tokens, made once for many runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arvis_scale.cli.app import Overrides, console, progress, shards_app


@shards_app.command("tokenize")
def shards_tokenize(
    destination: Annotated[Path, typer.Argument(metavar="DST", help="folder written by build")],
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file or recipe of the D-iGPT runs to come")],
    overrides: Overrides = None,
    views: Annotated[int, typer.Option(help="crops and flips of each training image")] = 1,
    precision: Annotated[str, typer.Option(help="fp16, int8 (with scales) or fp32")] = "fp16",
    output: Annotated[Path | None, typer.Option(help="folder to write [default: one in DST/tokens]")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="store more than 10 GB")] = False,
) -> None:
    """Run D-iGPT's teacher once and store its tokens, for runs with `teacher.tokens=FOLDER`.

    Killed and started again with the same command, it goes on where it ended.

    Example: `arvis-scale shards tokenize shards/photos digpt_b16_in1k teacher.checkpoint=weights/h14 --views 4`
    """
    from arvis_scale.engine.tokenize import load_tokenization, tokenize

    plan = load_tokenization(destination, config, overrides or [], views=views, precision=precision, folder=output)
    console.print(plan.summary(), markup=False)
    plan.check_size(confirmed=yes)
    with progress() as advance:
        manifest = tokenize(plan, advance)
    console.print(plan.outcome(manifest), markup=False)
