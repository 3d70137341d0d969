"""`arvis-scale shards ...`: image folders to shards."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from arvis_scale.cli.app import console, progress, shards_app


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
