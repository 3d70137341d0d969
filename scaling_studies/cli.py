"""The command line: `python -m scaling_studies ...`, which is also `arvis-scale study ...`.

A study folder takes four steps (collect, fit, plot, report). A table of points is fitted, ranked, compared and asked
for predictions directly; its columns are named by `--x`, `--y` and, where they have other names, `--column`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

app = typer.Typer(
    help="Points to laws, efficiency, predictions, figures and a report: of study folders and of any table.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
console = Console(soft_wrap=True, highlight=False, markup=False)

StudyFolder = Annotated[Path, typer.Argument(metavar="DIR", help="study folder", show_default=False)]
Table = Annotated[Path, typer.Argument(metavar="TABLE", help=".csv, .tsv, .json or .parquet", show_default=False)]
X = Annotated[str, typer.Option("--x", help="column(s) of x, such as params,samples_seen", show_default=False)]
Y = Annotated[str, typer.Option("--y", help="column of y: an error, a loss, or an accuracy for law accuracy")]
Law = Annotated[str, typer.Option(help="m1 m2 m3 m4 zhai bnsl accuracy parametric data_constrained")]
Columns = Annotated[list[str] | None, typer.Option("--column", help="OURS=THEIRS, such as error=1-accuracy")]
Where = Annotated[list[str] | None, typer.Option("--where", help="COLUMN=VALUE, or COLUMN!=VALUE: only these rows")]
Sigma = Annotated[str | None, typer.Option(help="column of standard errors of y", show_default=False)]
Fixed = Annotated[list[str] | None, typer.Option("--fixed", help="NAME=VALUE: a parameter that is held")]
Scale = Annotated[
    str | None, typer.Option(help="of the residuals: log, or linear, where y may be 0", show_default=False)
]
Breaks = Annotated[int | None, typer.Option(help="number of breaks of law bnsl", show_default=False)]
Hold = Annotated[list[str] | None, typer.Option("--hold", help="COLUMN=VALUE of the variables not in question")]
Over = Annotated[str | None, typer.Option(help="the variable in question, or compute", show_default=False)]
Extrapolate = Annotated[bool, typer.Option("--extrapolate", help="read the law beyond the data, and say how far")]
PerSample = Annotated[float, typer.Option(help="FLOPs per parameter and sample, for compute")]
Level = Annotated[float, typer.Option(help="of the intervals")]
Method = Annotated[str | None, typer.Option("--intervals", help="profile, cases, residuals, runs or noise")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON value")]


@app.command()
def collect(
    folder: StudyFolder,
    method: Annotated[
        list[str] | None, typer.Option(help="these methods alone; again for several", show_default=False)
    ] = None,
    output: Annotated[Path | None, typer.Option(help="folder of points.csv", show_default="DIR")] = None,
) -> None:
    """Gather the runs' results into DIR/points.csv.

    Example: `arvis-scale study collect runs/demo`
    """
    from scaling_studies import commands

    console.print(str(commands.collect(folder, method or (), output)))


@app.command()
def fit(
    path: Annotated[Path, typer.Argument(metavar="DIR|TABLE", help="study folder, or a table", show_default=False)],
    law: Law = "m2",
    x: Annotated[str | None, typer.Option("--x", help="of a table: column(s) of x", show_default=False)] = None,
    y: Annotated[
        str | None, typer.Option("--y", help="column of y; of a study error, error_attentive or error_knn")
    ] = None,
    column: Columns = None,
    where: Where = None,
    sigma: Sigma = None,
    fixed: Fixed = None,
    num_breaks: Breaks = None,
    scale: Scale = None,
    intervals: Method = None,
    level: Level = 0.95,
    as_json: AsJson = False,
) -> None:
    """Fit a law: to all curves of a study folder, written to DIR/fits.json, or to a table.

    Example: `arvis-scale study fit runs/demo`, `arvis-scale study fit runs.csv --law m4 --x samples_seen --y error`
    """
    from scaling_studies import commands, table_commands

    if path.is_dir():
        if any((x, column, where, sigma, fixed, num_breaks, scale, intervals, as_json)) or level != 0.95:
            raise ValueError(f"{path} is a study folder: --law and --y are the only options that it takes")
        console.print(str(commands.fit(path, law, y or "error")))
        return
    if x is None or y is None:
        raise ValueError(f"{path} is no study folder; for a table say --x and --y, its columns")
    found = table_commands.TableFit(path, law, x, y, column, where, sigma, fixed, num_breaks, scale).fit()
    if as_json:
        _show("", table_commands.fit_document(found, level, intervals), as_json)
    else:
        console.print(found.summary(level, method=intervals))


@app.command()
def rank(
    path: Table,
    x: X,
    y: Y,
    law: Annotated[str | None, typer.Option(help="laws, separated by commas [default: all that fit x]")] = None,
    share: Annotated[float, typer.Option(help="of the largest x, up to which laws are fitted")] = 0.5,
    column: Columns = None,
    where: Where = None,
    sigma: Sigma = None,
    as_json: AsJson = False,
) -> None:
    """Rank laws on a table: fitted up to a share of the largest x, half of it by default, and scored beyond.

    Example: `arvis-scale study rank runs.csv --x samples_seen --y error`
    """
    from scaling_studies import table_commands

    table = table_commands.ranking(path, x, y, law, share, column, where, sigma)
    shown = table.drop(columns="reason").map(lambda cell: f"{cell:.4g}" if isinstance(cell, float) else cell)
    reasons = [f"{row.law}: {row.reason}" for row in table.itertuples() if isinstance(row.reason, str)]
    _show("\n".join([shown.to_string(index=False), *reasons]), table.to_dict("records"), as_json)


@app.command()
def efficiency(
    path: Table,
    method_1: Annotated[str, typer.Argument(help="value of the column --by")],
    method_2: Annotated[str, typer.Argument(help="another value of it")],
    x: X,
    y: Y,
    law: Law = "m2",
    by: Annotated[str, typer.Option(help="column that tells the methods apart")] = "objective",
    at: Annotated[float | None, typer.Option(help="quality [default: all that both reach]")] = None,
    over: Over = None,
    hold: Hold = None,
    column: Columns = None,
    where: Where = None,
    sigma: Sigma = None,
    fixed: Fixed = None,
    num_breaks: Breaks = None,
    scale: Scale = None,
    extrapolate: Extrapolate = False,
    flops_per_param_sample: PerSample = 6.0,
    intervals: Method = None,
    level: Level = 0.95,
    as_json: AsJson = False,
) -> None:
    """Say how many times less of x method 1 needs than method 2 for the same quality.

    Example: `arvis-scale study efficiency runs.csv xtra aim --x samples_seen --y error --at 0.2`
    """
    from scaling_studies import table_commands

    table_commands.check_methods(path, column, by)
    fits = [
        table_commands.TableFit(
            path, law, x, y, column, [*(where or []), f"{by}={name}"], sigma, fixed, num_breaks, scale
        ).fit()
        for name in (method_1, method_2)
    ]
    options = _options(hold, level, intervals, flops_per_param_sample) | {"over": over}
    text, document = table_commands.compared((method_1, method_2), fits, at, extrapolate, options)
    _show(text, document, as_json)


@app.command()
def predict(
    path: Table,
    x: X,
    y: Y,
    law: Law = "m2",
    at: Annotated[list[str] | None, typer.Option("--at", help="COLUMN=VALUE: the quality there")] = None,
    quality: Annotated[float | None, typer.Option(help="what this quality takes", show_default=False)] = None,
    compute: Annotated[float | None, typer.Option(help="the best N and D for a budget", show_default=False)] = None,
    over: Over = None,
    hold: Hold = None,
    column: Columns = None,
    where: Where = None,
    sigma: Sigma = None,
    fixed: Fixed = None,
    num_breaks: Breaks = None,
    scale: Scale = None,
    extrapolate: Extrapolate = False,
    flops_per_param_sample: PerSample = 6.0,
    intervals: Method = None,
    level: Level = 0.95,
    as_json: AsJson = False,
) -> None:
    """Say what a fitted law expects: a quality at a point, what a quality takes, how a budget is best spent.

    Intervals are of the law: a single run scatters around it by its own noise besides.

    Example: `arvis-scale study predict runs.csv --law parametric --x params,samples_seen --y loss --compute 1e20`
    """
    from scaling_studies import table_commands

    table = table_commands.TableFit(path, law, x, y, column, where, sigma, fixed, num_breaks, scale)
    point = table_commands.numbers(at, "--at")
    if sum([bool(point), quality is not None, compute is not None]) != 1:
        raise ValueError("say one of --at COLUMN=VALUE, --quality and --compute")
    found, options = table.fit(), _options(hold, level, intervals, flops_per_param_sample)
    rest = [name for name in found.data.x_names if name not in options["held"]]
    over = rest[0] if over is None and len(rest) == 1 else over
    if point:
        answer = table_commands.predicted_quality(found, point, table.tested, level, intervals)
    elif quality is not None and over is not None:
        answer = table_commands.predicted_need(found, quality, over, extrapolate, options)
    else:
        answer = table_commands.predicted_best(found, compute, quality, options)
    _show(*answer, as_json)


@app.command()
def plot(folder: StudyFolder) -> None:
    """Draw points and laws into DIR/figures.

    Example: `arvis-scale study plot runs/demo`
    """
    from scaling_studies import commands

    for path in commands.plot(folder):
        console.print(str(path))


@app.command()
def report(folder: StudyFolder) -> None:
    """Write DIR/report.html, one self-contained page.

    Example: `arvis-scale study report runs/demo`
    """
    from scaling_studies import commands

    console.print(str(commands.report(folder)))


def _options(hold: list[str] | None, level: float, method: str | None, flops_per_param_sample: float) -> dict[str, Any]:
    """Options that efficiency and predictions share."""
    from scaling_studies import table_commands

    held = table_commands.numbers(hold, "--hold")
    return {"held": held, "level": level, "method": method, "flops_per_param_sample": flops_per_param_sample}


def _show(text: str, document: Any, as_json: bool) -> None:
    console.print(json.dumps(_finite(document), indent=2, allow_nan=False) if as_json else text)


def _finite(value: Any) -> Any:
    """The same with null for NaN and infinities, which JSON has none of."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
