"""`arvis-scale shards ...`: image folders to shards."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from arvis_scale.cli.app import Overrides, console, progress, shards_app


@shards_app.command("build")
def shards_build(
    source: Annotated[str, typer.Argument(metavar="SRC", help="image folder, archive of one, or `digits`")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="folder to write")],
) -> None:
    """Write WebDataset shards with an index from images.

    Example: `arvis-scale shards build photos/ shards/photos`
    """
    from arvis_scale.data.build import build_shards

    with progress() as advance:
        report = build_shards(source, destination, progress=advance)
    console.print(report.summary(), markup=False)


@shards_app.command("check")
def shards_check(destination: Annotated[Path, typer.Argument(metavar="DST", help="folder written by build")]) -> None:
    """Verify every shard and every sample, and name what is broken.

    Example: `arvis-scale shards check shards/photos`
    """
    from arvis_scale.data.check import check_shards

    with progress() as advance:
        report = check_shards(destination, progress=partial(advance, "checking"))
    console.print(report.summary(), markup=False)
    if report.problems:
        raise typer.Exit(1)


@shards_app.command("tokenize")
def shards_tokenize(
    destination: Annotated[Path, typer.Argument(metavar="DST", help="folder written by build")],
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file or recipe of the D-iGPT runs to come")],
    overrides: Overrides = None,
    views: Annotated[int, typer.Option(help="crops and flips of each training image")] = 1,
    precision: Annotated[str, typer.Option(help="fp16, int8 (with scales) or fp32")] = "fp16",
    output: Annotated[Path | None, typer.Option(help="folder to write [default: in DST/tokens]")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="store more than 10 GB")] = False,
) -> None:
    """Run D-iGPT's teacher once, and store its tokens for runs with `teacher.tokens=FOLDER`; goes on when killed.

    Example: `arvis-scale shards tokenize shards/photos digpt_b16_in1k teacher.checkpoint=weights/h14 --views 4`
    """
    from arvis_scale.engine.tokenize import load_tokenization, tokenize

    plan = load_tokenization(destination, config, overrides or [], views=views, precision=precision, folder=output)
    console.print(plan.summary(), markup=False)
    plan.check_size(confirmed=yes)
    with progress() as advance:
        manifest = tokenize(plan, advance)
    console.print(plan.outcome(manifest), markup=False)
