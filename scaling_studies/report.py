"""One self-contained HTML page about a study: answers, figures, constants, references, every run, the commands."""

from __future__ import annotations

import base64
import shlex
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib import rc_context

from arvis_scale import __version__
from arvis_scale.atomic import read_json
from scaling_studies.axes import STYLE
from scaling_studies.collect import SWEEP_SCHEMA
from scaling_studies.figures import FIGURES, figure_bytes
from scaling_studies.points import measured, missing_runs
from scaling_studies.references import num_held
from scaling_studies.statements import count, efficiency_statement, method_name, percent

_CAPTIONS = {
    "error_vs_unique_images": "Linear-probe error against the number of <em>unique images</em> in the pretraining set, "
    "one panel per encoder size. The number of samples seen, repeats counted, stands in each panel's title. "
    "Runs of different methods at one number of images are set apart sideways by a hair.",
    "error_vs_params": "Linear-probe error against <em>encoder parameters</em>, at the largest pretraining set with "
    "enough encoder sizes.",
}
# Width in inches of a figure that fills the page.
_FULL_WIDTH = 8.7
_PACKAGES = ("numpy", "scipy", "pandas", "matplotlib", "scikit-learn")


def render_report(study_dir: Path, points: pd.DataFrame, fits: dict[str, Any]) -> str:
    """The page as HTML; it loads nothing from anywhere. Its figures are drawn afresh from `points` and `fits`."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(count=count, percent=percent, method=method_name, number=_number)
    template = environment.from_string(resources.files("scaling_studies").joinpath("report.html.j2").read_text("utf-8"))
    return template.render(
        title=_study_name(study_dir),
        answers=_answers(fits),
        laws=sorted({(c["law"]["title"], c["law"]["formula"], c["law"]["source"]) for c in _fitted(fits)}),
        has_zero_error=bool((points["value"] == 0).any()),
        statements=[efficiency_statement(row) for row in fits["efficiency"]],
        figures=_figures(points, fits),
        fits=fits,
        shortfalls=_shortfalls(points, fits),
        num_trained=int((measured(points)["kind"] == "trained").sum()),
        missing=missing_runs(points),
        runs=points.astype(object).where(points.notna(), None).to_dict("records"),
        hours=float(points["device_seconds"].sum()) / 3600,
        commands=_commands(study_dir),
        versions=_versions(),
    )


def _study_name(study_dir: Path) -> str:
    file = study_dir / "sweep.json"
    if not file.is_file():
        return study_dir.resolve().name
    return str(read_json(file, newest_schema=SWEEP_SCHEMA).get("study") or study_dir.resolve().name)


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


def _figures(points: pd.DataFrame, fits: dict[str, Any]) -> list[dict[str, str]]:
    with rc_context(STYLE):
        return [
            {
                "data": base64.b64encode(figure_bytes(figure, "svg")).decode(),
                "caption": caption,
                "alt": name.replace("_", " "),
                # One scale for all: text is equally large in every figure.
                "width": f"{min(100.0, 100 * figure.get_figwidth() / _FULL_WIDTH):.0f}%",
            }
            for name, caption in _CAPTIONS.items()
            for figure in (FIGURES[name](points, fits),)
        ]


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


def _commands(study_dir: Path) -> list[str]:
    """The commands that made the runs, as the sweep recorded them, and the steps from runs to this page."""
    file = study_dir / "sweep.json"
    recorded = read_json(file, newest_schema=SWEEP_SCHEMA).get("commands", []) if file.is_file() else []
    folder = shlex.quote(str(study_dir))
    return [*recorded, *(f"arvis-scale study {step} {folder}" for step in ("collect", "fit", "plot", "report"))]


def _versions() -> str:
    return ", ".join([f"arvis_scale {__version__}", *(f"{name} {metadata.version(name)}" for name in _PACKAGES)])


def _number(value: float) -> str:
    """Three significant digits, with an exponent only where nothing else can be read."""
    return f"{value:.3g}"
