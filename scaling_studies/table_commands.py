"""What the command line does with a table of points: read, fit, rank, compare and predict, in text and JSON."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from scaling_studies.cautions import cautions
from scaling_studies.efficiency import crossings, efficiency
from scaling_studies.extent import ScoredReach
from scaling_studies.law_fit import LawFit, fit_law
from scaling_studies.law_names import LAWS, law_class
from scaling_studies.predictions import Prediction, cheapest, needed, predict_quality
from scaling_studies.slices import COMPUTE
from scaling_studies.statements import count, ratio_sentence
from scaling_studies.tables import check_points, read_renamed
from scaling_studies.trust import extrapolation_test, rank_laws


def read_table(path: Path, columns: list[str] | None, where: list[str] | None) -> pd.DataFrame:
    """The table under our column names, with only the rows that `where` keeps: `NAME=VALUE`, or `NAME!=VALUE`,
    by our name or the table's. What the other rows hold does not matter: a study's table has blanks where runs failed.

    Raises `ValueError` with the values that there are where none has the one asked for.
    """
    renamed = _pairs(columns, "--column")
    ours = {theirs: name for name, theirs in renamed.items()}
    table = read_renamed(path, renamed)
    kept = pd.Series(True, index=table.index)
    for text in where or []:
        ((name, value),) = _pairs([text], "--where").items()
        name, is_not = name.removesuffix("!"), name.endswith("!")
        name = ours.get(name, name)
        if name not in table:
            raise ValueError(f"{path} has no column {name!r}; there are {', '.join(map(str, table))}")
        is_number = pd.api.types.is_numeric_dtype(table[name]) and not pd.api.types.is_bool_dtype(table[name])
        cells = table[name] if is_number else table[name].astype(str)
        same = cells == (number_of(value, f"--where {name}") if is_number else value)
        left = kept & (~same if is_not else same)
        if not same.any() or not left.any():
            # A column of text may hold numbers too (of JSON, Parquet), which do not compare with it.
            values = sorted(table[name][kept].dropna().unique(), key=None if is_number else str)
            there = ", ".join(map(str, values[:12]))
            what = f"only {value!r} is there" if is_not and same.any() else f"no row has {value!r}; there are {there}"
            raise ValueError(f"{path}, column {name}: {what}")
        kept = left
    return check_points(path, table[kept])


def measured_rows(table: pd.DataFrame, y: str, *, said: bool = False) -> pd.DataFrame:
    """The rows with a `y`, which not all runs of a study have of every probe; all where none has one.

    With `said` a line on stderr counts the others.
    """
    rows = table.dropna(subset=[y]) if y in table else table
    if rows.empty:
        return table
    if said and len(rows) < len(table):
        print(f"{len(table) - len(rows)} of {len(table)} rows have no {y} and are left out", file=sys.stderr)
    return rows


def check_methods(path: Path, columns: list[str] | None, by: str) -> None:
    """Raise `ValueError` where no column `by` tells methods apart."""
    table = read_renamed(path, _pairs(columns, "--column"))
    if by not in table:
        there = ", ".join(map(str, table))
        raise ValueError(f"{path} has no column {by!r}: say --by COLUMN that tells the two apart; there are {there}")


@dataclass(frozen=True)
class TableFit:
    """A law on some rows of a table, in the words of the command line."""

    path: Path
    law: str
    x: str
    y: str
    columns: list[str] | None
    where: list[str] | None
    sigma: str | None
    fixed: list[str] | None
    num_breaks: int | None
    scale: str | None

    def fit(self) -> LawFit:
        """The law fitted; `fixed` adds to what it holds by itself. A line on stderr counts the rows without y."""
        return fit_law(measured_rows(self._table(), self.y, said=True), self.law, **self._options())

    def tested(self) -> ScoredReach | None:
        """What a test beyond the lower half of the last x has scored; `None` where it has too few points."""
        try:
            return extrapolation_test(measured_rows(self._table(), self.y), self.law, **self._options()).tested
        except ValueError:
            return None

    def _table(self) -> pd.DataFrame:
        return read_table(self.path, self.columns, self.where)

    def _options(self) -> dict[str, Any]:
        return {
            "x": self.x.split(","),
            "y": self.y,
            "sigma": self.sigma,
            "fixed": {**law_class(self.law).held, **numbers(self.fixed, "--fixed")},
            "num_breaks": self.num_breaks,
            "scale": self.scale,
        }


def fit_document(fit: LawFit, level: float, method: str | None) -> dict[str, Any]:
    """Everything about a fit as JSON takes it."""
    intervals = {name: fit.interval(name, level, method=method) for name in fit.params}
    samples = fit.interval_samples(method)
    return {
        "law": fit.law,
        "formula": fit.form.formula,
        "source": fit.form.source,
        "x": list(fit.data.x_names),
        "y": fit.data.y_name,
        "num_points": len(fit.data.y),
        "objective": fit.objective,
        "params": {
            name: {"value": value, "low": intervals[name][0], "high": intervals[name][1]}
            for name, value in fit.params.items()
        },
        "level": level,
        "num_starts": fit.result.num_starts,
        "num_starts_converged": fit.result.num_converged,
        "num_samples": samples and samples.num_drawn,
        "num_samples_converged": samples and len(samples.theta),
        "x_range": {name: list(ends) for name, ends in fit.x_range.items()},
        "warnings": fit.warnings_for(method),
    }


def ranking(
    path: Path,
    x: str,
    y: str,
    laws: str | None,
    share: float,
    columns: list[str] | None,
    where: list[str] | None,
    sigma: str | None,
) -> pd.DataFrame:
    """`rank_laws` on the table; without `laws` all of errors in as many variables as x has.

    Raises `ValueError` where none can be fitted.
    """
    names = x.split(",")
    fitting = [name for name, law in LAWS.items() if law.falls and len(law.variables) == len(names)]
    chosen = laws.split(",") if laws else fitting
    options = {name: {"sigma": sigma} for name in chosen}
    points = measured_rows(read_table(path, columns, where), y, said=True)
    table = rank_laws(points, chosen, x=names, y=y, share=share, options=options)
    if table["num_params"].isna().all():
        raise ValueError(f"no law can be fitted: {table['reason'][0]}")
    return table


def compared(
    names: tuple[str, str], fits: Sequence[LawFit], at: float | None, extrapolate: bool, options: dict[str, Any]
) -> tuple[str, Any]:
    """Efficiency of the first method over the second: one sentence at a quality, or a table with the crossings."""
    first, second = fits
    said = [
        f"{name}: {text}" for name, fit in zip(names, fits, strict=True) for text in cautions(fit, options["method"])
    ]
    if at is not None:
        found = efficiency(first, second, at=at, extrapolate=extrapolate, **options)
        sentence = ratio_sentence(*names, found.over, asdict(found))
        return f"At {first.data.y_name} {at:.4g}, {sentence}{_warnings(said)}", asdict(found) | {"cautions": said}
    table = efficiency(first, second, extrapolate=extrapolate, **options)
    shown = table[["quality", "ratio", "low", "high", "x_1", "x_2"]].map(lambda cell: f"{cell:.4g}")
    places = crossings(first, second, **options)
    lines = [
        f"The curves cross at {found.over} {count(found.x)}"
        + (f" ({count(found.low)} to {count(found.high)})" if found.share > 0 else "")
        + f", {found.share:.0%} of bootstrap pairs do: below it {names[found.better_below - 1]} is better."
        for found in places
    ]
    text = "\n".join([shown.to_string(index=False), *(lines or ["The curves do not cross within the data."])])
    document = {"efficiency": table.to_dict("records"), "crossings": [asdict(found) for found in places]}
    return text + _warnings(said), document | {"cautions": said}


def predicted_quality(
    fit: LawFit, at: dict[str, float], tested: Callable[[], ScoredReach | None], level: float, method: str | None
) -> tuple[str, Any]:
    """y at one point; `tested` finds what was scored beyond the data, where that is in question."""
    found = predict_quality(fit, at, level=level, method=method)
    if found.warning is not None:
        found = predict_quality(fit, at, level=level, method=method, tested=tested())
    place = ", ".join(f"{column} {count(value)}" for column, value in at.items())
    said = cautions(fit, method)
    text = f"{fit.data.y_name} {_ends(found, '.4g')} at {place}{_warnings([found.warning, *said])}"
    return text, asdict(found) | {"cautions": said}


def predicted_need(
    fit: LawFit, quality: float, over: str, extrapolate: bool, options: dict[str, Any]
) -> tuple[str, Any]:
    """What of one variable a quality takes."""
    found = needed(fit, quality, over=over, extrapolate=extrapolate, **options)
    said = cautions(fit, options["method"])
    text = f"{over} {_ends(found)} for {fit.data.y_name} {quality:.4g}{_warnings([found.warning, *said])}"
    return text, asdict(found) | {"cautions": said}


def predicted_best(
    fit: LawFit, compute: float | None, quality: float | None, options: dict[str, Any]
) -> tuple[str, Any]:
    """The N and D of lowest y for a budget, or the cheapest that reach a quality."""
    held = dict(options.pop("held"))
    unique_images = held.pop(fit.data.x_names[2], None) if len(fit.data.x_names) == 3 else None
    if held:
        raise ValueError(f"--hold {', '.join(held)}: the best split holds nothing of N and D")
    best = cheapest(fit, compute=compute, quality=quality, unique_images=unique_images, **options)
    size, samples = fit.data.x_names[:2]
    shown = f"{best.compute.value:.4g}" if quality is None else _ends(best.compute, ".4g")
    reached = _ends(best.quality, ".4g") if quality is None else f"{best.quality.value:.4g}"
    said = cautions(fit, options["method"])
    text = (
        f"{COMPUTE} {shown} FLOPs: {size} {_ends(best.params)}, {samples} {_ends(best.samples)}, "
        f"{fit.data.y_name} {reached}{_warnings([best.quality.warning, *said])}"
    )
    return text, asdict(best) | {"cautions": said}


def numbers(pairs: list[str] | None, option: str) -> dict[str, float]:
    """`NAME=VALUE` of a repeated option, the values numbers."""
    return {name: number_of(value, f"{option} {name}") for name, value in _pairs(pairs, option).items()}


def number_of(text: str, option: str) -> float:
    """A number that the command line was given."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{option}: {text!r} is not a number") from None


def _pairs(pairs: list[str] | None, option: str) -> dict[str, str]:
    found = {}
    for text in pairs or []:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} {text!r}: expected NAME=VALUE")
        found[name] = value
    return found


def _ends(found: Prediction, form: str = "") -> str:
    """A value with its interval, in words where an end is open."""

    def shown(number: float) -> str:
        return format(number, form) if form else count(number)

    if math.isnan(found.low):
        return shown(found.value)
    if found.low == 0 or math.isinf(found.high):
        open_end = f"at least {shown(found.low)}" if found.low > 0 else "open at both ends"
        return f"{shown(found.value)} ({f'at most {shown(found.high)}' if math.isfinite(found.high) else open_end})"
    return f"{shown(found.value)} ({shown(found.low)} to {shown(found.high)})"


def _warnings(sentences: Sequence[str | None]) -> str:
    """A line per sentence, under an answer."""
    return "".join(f"\nwarning: {text}" for text in sentences if text is not None)
