"""`arvis-scale shards ...`: image folders to shards."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from arvis_scale.cli.app import console, progress, shards_app


@shards_app.command("build")
def shards_build(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="image folder, archive, .csv/.parquet manifest, .tar shards, `digits`")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="folder to write")],
    shard_size: Annotated[int | None, typer.Option(help="samples in a shard, at most [default: 10,000]")] = None,
    shard_bytes: Annotated[str | None, typer.Option(help="or about so many bytes: 1GB, 512MiB")] = None,
    shorter_side: Annotated[int | None, typer.Option(help="encode larger images anew to this side, in pixels")] = None,
    quality: Annotated[int, typer.Option(help="JPEG quality of images encoded anew")] = 95,
    column: Annotated[list[str] | None, typer.Option(help="column of a manifest by another name: label=class")] = None,
    index_only: Annotated[bool, typer.Option("--index-only", help="index .tar shards where they are")] = False,
    on_bad_sample: Annotated[
        str, typer.Option(help="skip: name and count what cannot be used; raise: refuse")
    ] = "skip",
    seed: Annotated[int, typer.Option(min=0, help="seed of the shuffle")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="threads [default: one per core, up to 16]")] = None,
) -> None:
    """Write WebDataset shards with an index from images; started again, it goes on where it was killed.

    Example: `arvis-scale shards build photos/ shards/photos --shorter-side 288`

    Example: `arvis-scale shards build 's3://bucket/photos-{000..099}.tar' shards/photos --index-only`
    """
    from arvis_scale.data.build import build_index, build_shards

    rewriting = (shard_size, shard_bytes, shorter_side, column)
    if index_only and any(option is not None for option in rewriting):
        raise ValueError(
            "--index-only rewrites nothing; leave out --shard-size, --shard-bytes, --shorter-side, --column"
        )
    with progress() as advance:
        if index_only:
            report = build_index(
                source,
                destination,
                seed=seed,
                on_bad_sample=on_bad_sample,
                num_workers=workers,
                progress=advance,
            )
        else:
            report = build_shards(
                source,
                destination,
                samples_per_shard=shard_size,
                bytes_per_shard=None if shard_bytes is None else _num_bytes(shard_bytes),
                shorter_side=shorter_side,
                quality=quality,
                columns=_columns(column or []),
                seed=seed,
                on_bad_sample=on_bad_sample,
                num_workers=workers,
                progress=advance,
            )
    console.print(report.summary(), markup=False)


def _num_bytes(text: str) -> int:
    """Return the number of bytes that `1GB` (10^9), `512MiB` (2^20 each) or a plain number says."""
    units = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]i?B)?", text)
    if match is None:
        raise ValueError(f"{text!r} is no number of bytes; write it like 1GB or 512MiB")
    return int(float(match[1]) * units[match[2] or ""])


def _columns(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for text, (column, _, name) in zip(given, pairs, strict=True):
        if not column or not name:
            raise ValueError(f"{text!r} renames no column; write it like label=class")
    return {column: name for column, _, name in pairs}


@shards_app.command("check")
def shards_check(
    destination: Annotated[str, typer.Argument(metavar="DST", help="folder written by build, or its URL")],
    quick: Annotated[bool, typer.Option("--quick", help="read the index and the sizes only")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the report there too")] = None,
) -> None:
    """Verify every shard and every sample, and name what is broken; ends with status 1 if anything is.

    Example: `arvis-scale shards check shards/photos --json check.json`
    """
    from arvis_scale.data.check import check_shards

    with progress() as advance:
        report = check_shards(destination, quick=quick, progress=partial(advance, "checking"))
    console.print(report.summary(), markup=False)
    if json_file is not None:
        report.write(json_file)
        console.print(f"report: {json_file}", markup=False)
    if report.problems:
        raise typer.Exit(1)


@shards_app.command("show")
def shards_show(
    destination: Annotated[str, typer.Argument(metavar="DST", help="folder written by build, or its URL")],
    sheet: Annotated[Path | None, typer.Option(metavar="PNG", help="contact sheet to write")] = None,
    split: Annotated[str, typer.Option(help="split that the contact sheet shows")] = "train",
    seed: Annotated[int, typer.Option(min=0, help="seed of the images shown")] = 0,
) -> None:
    """Print what is in the shards, and write a contact sheet of their images.

    Example: `arvis-scale shards show shards/photos --sheet photos.png`
    """
    from arvis_scale.data.contact_sheet import write_contact_sheet
    from arvis_scale.data.shard_statistics import describe, split_statistics
    from arvis_scale.data.shards import open_shards

    dataset = open_shards(destination, allow_damage=True)
    console.print(describe(dataset, [split_statistics(dataset, name) for name in dataset.splits]), markup=False)
    path = sheet or Path(f"{dataset.name}-{split}.png")
    write_contact_sheet(dataset, split, path, seed=seed)
    console.print(f"contact sheet: {path}", markup=False)
