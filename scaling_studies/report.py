"""One report about a study, as a self-contained HTML page and as Markdown with its figures beside it.

Both say the same: answers, warnings, figures, law ranking, constants, references, predictions, every run, provenance.
"""

from __future__ import annotations

import base64
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from arvis_scale.atomic import write_text
from scaling_studies.figures.drawing import Drawing, figure_bytes
from scaling_studies.figures.study import StudyFigures, draw_study
from scaling_studies.points import measured, missing_runs
from scaling_studies.provenance import provenance
from scaling_studies.references import num_held
from scaling_studies.statements import count, efficiency_statement, method_name, percent

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
    "bins of log compute, at the bin's center; line: the power law through them (approach 1 of Hoffmann et al. 2022).",
    "iso_loss": "Contours of equal error of the law fitted over encoder parameters and data, inside the data only.",
    "efficiency_over_unique_images": f"Sample efficiency in unique images, at the largest encoder. {_RATIO}",
    "efficiency_over_samples_seen": f"Sample efficiency in samples seen, at the largest encoder. {_RATIO}",
    "efficiency_over_params_encoder": f"Parameter efficiency. {_RATIO}",
    "residuals": "What the fitted laws miss: measured over fitted error. Bars: 95% intervals of the measurement.",
    "extrapolation": "Laws fitted to the lower half of x and seen on the upper one.",
}
_LEFT_OUT = ("cover",)
# Width in inches of a figure that fills the page.
_FULL_WIDTH = 8.7
_AXES = {
    "unique_images": "unique images",
    "samples_seen": "samples seen",
    "params_encoder": "encoder parameters",
}


def render_report(study_dir: Path, points: pd.DataFrame, fits: dict[str, Any]) -> str:
    """The page as HTML; it loads nothing from anywhere. Its figures are drawn afresh from `points` and `fits`."""
    return _render("report.html.j2", _content(study_dir, points, fits, draw_study(points, fits)), is_html=True)


def write_report(study_dir: Path, points: pd.DataFrame, fits: dict[str, Any]) -> list[Path]:
    """Write STUDY/report.html, and STUDY/report.md with STUDY/figures; returns the paths of the two reports."""
    drawn = draw_study(points, fits)
    content = _content(study_dir, points, fits, drawn)
    page, text = study_dir / "report.html", study_dir / "report.md"
    for name, drawing in drawn.drawings.items():
        drawing.save(study_dir / "figures" / name)
    write_text(page, _render("report.html.j2", content, is_html=True))
    write_text(text, _render("report.md.j2", content, is_html=False))
    return [page, text]


def _render(template: str, content: dict[str, Any], *, is_html: bool) -> str:
    environment = jinja2.Environment(
        autoescape=is_html, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        count=count, percent=percent, method=method_name, number=_number, axis=_axis, cell=_markdown_cell
    )
    source = resources.files("scaling_studies").joinpath(template).read_text("utf-8")
    return environment.from_string(source).render(**content)


def _content(study_dir: Path, points: pd.DataFrame, fits: dict[str, Any], drawn: StudyFigures) -> dict[str, Any]:
    """Everything both templates show."""
    origin = provenance(study_dir, points)
    return {
        "title": origin.study,
        "origin": origin,
        "answers": _answers(fits),
        "warnings": _warnings(fits, drawn),
        "laws": sorted({(c["law"]["title"], c["law"]["formula"], c["law"]["source"]) for c in _fitted(fits)}),
        "has_zero_error": bool((points["value"] == 0).any()),
        "statements": [efficiency_statement(row) for row in fits["efficiency"]],
        "figures": [_figure(name, drawing) for name, drawing in drawn.drawings.items() if name not in _LEFT_OUT],
        "not_drawn": {name: why for name, why in drawn.left_out.items() if name not in _LEFT_OUT},
        "fits": {"law_ranking": [], "surface": [], "crossings": [], "predictions": [], "warnings": []} | fits,
        "shortfalls": _shortfalls(points, fits),
        "num_trained": int((measured(points)["kind"] == "trained").sum()),
        "missing": missing_runs(points),
        "runs": points.astype(object).where(points.notna(), None).to_dict("records"),
        "hours": float(points["device_seconds"].sum()) / 3600,
    }


def _fitted(fits: dict[str, Any]) -> list[dict[str, Any]]:
    return [curve for curve in fits["curves"] if curve["status"] == "fitted"]


def _answers(fits: dict[str, Any]) -> list[dict[str, Any]]:
    """One sentence per pair of methods and axis: at the largest encoder, in the middle of what both measured.

    Those that were measured come first.
    """
    best: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in fits["efficiency"]:
        if row.get("at") == "lowest":
            continue
        key = (row["method_1"], row["method_2"], row["x"])
        known = best.get(key)
        # A measured ratio says more than a refusal, and among equals the larger encoder is the one that matters.
        if known is None or _weight(row) > _weight(known):
            best[key] = row
    rows = sorted(best.values(), key=lambda row: row["status"] != "measured")
    return [{"measured": row["status"] == "measured", "text": efficiency_statement(row)} for row in rows]


def _weight(row: dict[str, Any]) -> tuple[bool, int]:
    return row["status"] == "measured", row["num_encoder_params"]


def _warnings(fits: dict[str, Any], drawn: StudyFigures) -> list[str]:
    """Sentences of the fits and of the figures, each once."""
    found = list(fits.get("warnings", []))
    for one in fits.get("surface", []):
        found += [f"{method_name(one['objective'])} over N and D: {text}" for text in one.get("warnings", [])]
    found += [text for drawing in drawn.drawings.values() for text in drawing.warnings]
    return list(dict.fromkeys(found))


def _figure(name: str, drawing: Drawing) -> dict[str, str]:
    share = min(100.0, 100 * drawing.figure.get_figwidth() / _FULL_WIDTH)
    return {
        "name": name,
        "data": base64.b64encode(figure_bytes(drawing.figure, "svg")).decode(),
        "caption": CAPTIONS[name],
        "alt": name.replace("_", " "),
        # One scale for all: text is equally large in every figure.
        "width": f"{share:.0f}%",
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
    return _AXES.get(x, x.replace("_", " "))


def _markdown_cell(text: Any) -> str:
    """`text` shown as it is by Markdown, on one line: its markup and the table's bars are escaped."""
    shown = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in ("\\", "|", "`", "*", "_", "[", "]", "~", "$"):
        shown = shown.replace(mark, f"\\{mark}")
    return shown
