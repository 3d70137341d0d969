"""One report about a study, as a self-contained HTML page and as Markdown with its figures beside it.

Both say the same: answers, warnings, figures, law ranking, constants, references, predictions, every run, provenance.
"""

from __future__ import annotations

import base64
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from arvis_scale.atomic import write_text
from scaling_studies.figures.saved import SavedFigure, SavedFigures, saved_figures
from scaling_studies.points import measured, missing_runs
from scaling_studies.provenance import provenance
from scaling_studies.references import num_held
from scaling_studies.statements import (
    METRIC_NAMES,
    UNITS,
    count,
    difference_statement,
    efficiency_statement,
    is_determined,
    method_name,
    percent,
)

_RUNS = (
    "Bars: 95% binomial intervals of the probe. Lines: fitted law with its 95% bootstrap band, dashed beyond the "
    "measured range; thin dashes from point to point where there is no fit. Dotted: untrained encoders."
)
_RATIO = "Above 1 the first method needs less; the band is the 95% bootstrap interval, read off inside the data only."
CAPTIONS = {
    "error_vs_unique_images": "Error against the number of unique images in the pretraining set, one panel per encoder "
    f"size. Runs of different methods at one number of images are set apart sideways by a hair. {_RUNS}",
    "error_vs_samples_seen": f"Error against the number of samples seen, repeats counted, per encoder size. {_RUNS}",
    "error_vs_params": "Error against encoder parameters, at the largest pretraining set with enough encoder sizes. "
    f"{_RUNS}",
    "error_vs_compute": "Error against training compute of every run. Crosses: the lowest error in each of five equal "
    "bins of log compute; line: the power law through them (approach 1 of Hoffmann et al. 2022).",
    "iso_loss": "Contours of equal error of the law fitted over encoder parameters and data, inside the data only.",
    "efficiency_over_unique_images": f"Sample efficiency in unique images, at the largest encoder. {_RATIO}",
    "efficiency_over_samples_seen": f"Sample efficiency in samples seen, at the largest encoder. {_RATIO}",
    "efficiency_over_params_encoder": f"Parameter efficiency. {_RATIO}",
    "residuals": "What the fitted laws miss: measured over fitted error. Bars: 95% intervals of the measurement.",
    "extrapolation": "Laws fitted to the lower half of x and seen on the upper one.",
}
_TOO_FEW = re.compile(r"not enough points: (\d+) distinct .*? needs (\d+)")
_LEFT_OUT = ("cover",)
# Runs without a result that the page names; the table of points names all.
_NUM_NAMED = 20
_VERDICTS = {
    "not lower": "their error is not lower",
    "within noise": "their error is lower by less than the noise of the two measurements",
}
# Width in inches of a figure that fills the page.
_FULL_WIDTH = 8.7


def write_report(study_dir: Path, points: pd.DataFrame, fits: dict[str, Any]) -> list[Path]:
    """Write STUDY/report.html and STUDY/report.md; returns their paths.

    Both show the figures in STUDY/figures, which are drawn first where they are not of these points and fits.
    """
    content = _content(study_dir, points, fits, saved_figures(points, fits, study_dir / "figures"))
    page, text = study_dir / "report.html", study_dir / "report.md"
    write_text(page, _render("report.html.j2", content, is_html=True))
    write_text(text, _render("report.md.j2", content, is_html=False))
    return [page, text]


def _render(template: str, content: dict[str, Any], *, is_html: bool) -> str:
    environment = jinja2.Environment(
        autoescape=is_html, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        count=count,
        percent=percent,
        method=method_name,
        number=_number,
        axis=_axis,
        cell=_markdown_cell,
        curve_title=_curve_title,
        difference=difference_statement,
    )
    source = resources.files("scaling_studies").joinpath(template).read_text("utf-8")
    return environment.from_string(source).render(**content)


def _content(study_dir: Path, points: pd.DataFrame, fits: dict[str, Any], figures: SavedFigures) -> dict[str, Any]:
    """Everything both templates show."""
    origin = provenance(study_dir, points, fits)
    return {
        "title": origin.study,
        "origin": origin,
        "answers": _answers(fits),
        "warnings": _warnings(fits, figures),
        "laws": sorted({(c["law"]["title"], c["law"]["formula"], c["law"]["source"]) for c in _fitted(fits)}),
        "has_zero_error": bool((points["value"] == 0).any()),
        "error_name": METRIC_NAMES[fits["metric"]],
        "statements": [efficiency_statement(row, fits["metric"]) for row in fits["efficiency"]],
        "rankings": [_ranking(curve) for curve in fits.get("law_ranking", [])],
        "figures": [_figure(figure) for figure in figures.drawn if figure.name not in _LEFT_OUT],
        "not_drawn": {name: why for name, why in figures.left_out.items() if name not in _LEFT_OUT},
        "fits": fits,
        "shortfalls": _shortfalls(points, fits),
        "verdicts": _VERDICTS,
        "num_trained": int((measured(points)["kind"] == "trained").sum()),
        "missing": missing_runs(points),
        "num_named": _NUM_NAMED,
        "runs": points.astype(object).where(points.notna(), None).to_dict("records"),
        "hours": float(points["device_seconds"].sum()) / 3600,
    }


def _fitted(fits: dict[str, Any]) -> list[dict[str, Any]]:
    return [curve for curve in fits["curves"] if curve["status"] == "fitted"]


def _answers(fits: dict[str, Any]) -> list[dict[str, Any]]:
    """One sentence per pair of methods and axis: at the largest encoder, in the middle of what both measured.

    Those whose interval ends somewhere come first, then those that these points do not determine, and last in one
    sentence why the others have no curves to compare.
    """
    best: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in fits["efficiency"]:
        if row.get("at") == "lowest":
            continue
        key = (row["method_1"], row["method_2"], row["x"])
        known = best.get(key)
        # A determined ratio says more than a measured one, and that more than a refusal; among equals the larger
        # encoder is the one that matters.
        if known is None or _weight(row) > _weight(known):
            best[key] = row
    rows = sorted(best.values(), key=lambda row: (not is_determined(row), row["status"] != "measured"))
    answers = [
        {"measured": is_determined(row), "text": efficiency_statement(row, fits["metric"])}
        for row in rows
        if row["status"] != "not fitted"
    ]
    reasons = dict.fromkeys(row["reason"] for row in rows if row["status"] == "not fitted")
    return answers + ([{"measured": False, "text": f"Not compared: {'; '.join(reasons)}."}] if reasons else [])


def _weight(row: dict[str, Any]) -> tuple[bool, bool, int]:
    return is_determined(row), row["status"] == "measured", row["num_encoder_params"]


def _ranking(curve: dict[str, Any]) -> dict[str, Any]:
    """A curve's laws that were fitted, and in one phrase the others with what they lack."""
    rows = [row | {"reason": _in_short(row["reason"])} for row in curve["rows"]]
    others = [f"{row['law']} ({row['reason']})" for row in rows if row["num_params"] is None or row["rmse"] is None]
    fitted = [row for row in rows if row["num_params"] is not None and row["rmse"] is not None]
    title = f"{_curve_title(curve)} ({curve['num_points']} points)"
    return {"title": title, "rows": fitted, "not_fitted": ", ".join(others)}


def _in_short(reason: str | None) -> str:
    """Why a law was not fitted, or not tested on its upper half, in a table's cell."""
    if reason is None or (found := _TOO_FEW.search(reason)) is None:
        return reason or ""
    where = "lower half: " if reason.startswith("extrapolation test") else ""
    return f"{where}needs {found[2]} different x, has {found[1]}"


def _curve_title(curve: dict[str, Any]) -> str:
    """Which curve it is: its method, its encoder or its number of images, and what it goes over."""
    images = curve.get("held", {}).get("unique_images", 0)
    at = "" if images == 0 else f", {'an unknown number of' if images is None else count(images)} unique images"
    preset = f", {curve['preset']}" if curve["preset"] else ""
    return f"{method_name(curve['objective'])}{preset} over {_axis(curve['x'])}{at}"


def _warnings(fits: dict[str, Any], figures: SavedFigures) -> list[str]:
    """Sentences of the fits and of the figures, each once."""
    found = list(fits.get("warnings", []))
    for one in fits.get("surface", []):
        found += [f"{method_name(one['objective'])} over N and D: {text}" for text in one.get("warnings", [])]
    found += [text for figure in figures.drawn for text in figure.warnings]
    return list(dict.fromkeys(found))


def _figure(figure: SavedFigure) -> dict[str, str]:
    share = min(1.0, figure.width / _FULL_WIDTH)
    return {
        "name": figure.name,
        "data": base64.b64encode(figure.svg).decode(),
        "caption": CAPTIONS[figure.name],
        "alt": figure.name.replace("_", " "),
        # One scale for all: text is equally large in every figure.
        "share": f"{share:.3f}",
    }


def _shortfalls(points: pd.DataFrame, fits: dict[str, Any]) -> list[dict[str, Any]]:
    """Shortfalls by reference, the runs of each in one row with the number of runs held against that reference."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for found in fits["shortfalls"]:
        grouped.setdefault((found["reference"], found["verdict"]), []).append(found["run"])
    held = num_held(points)
    return [
        {"reference": name, "verdict": verdict, "runs": runs, "num_held": held[name]}
        for (name, verdict), runs in grouped.items()
    ]


def _number(value: float | None) -> str:
    """Three significant digits, with an exponent only where nothing else can be read; blank when not known."""
    return "" if value is None else f"{value:.3g}"


def _axis(x: str) -> str:
    return UNITS.get(x, x.replace("_", " "))


def _markdown_cell(text: Any) -> str:
    """`text` shown as it is by Markdown, on one line: its markup and the table's bars are escaped."""
    shown = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in ("\\", "|", "`", "*", "_", "[", "]", "~", "$"):
        shown = shown.replace(mark, f"\\{mark}")
    return shown
