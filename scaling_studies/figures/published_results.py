"""Published accuracies as errors against parameters and against unique images, with the claimed ratios as arrows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scaling_studies.axes import GRAY, OKABE_ITO, footnote, styled
from scaling_studies.figures.drawing import Drawing
from scaling_studies.figures.error_curves import LABELS
from scaling_studies.figures.method_styles import KNOWN_STYLES, Style
from scaling_studies.figures.panels import legend, panel_grid
from scaling_studies.figures.series import Panel, Series
from scaling_studies.published import load_claims, load_published
from scaling_studies.statements import method_name

_OTHER = "other methods"
_ORDER = ("xtra", "digpt", "aim", "igpt", "mae", _OTHER)


@styled
def published_results(*, benchmark: str = "ImageNet-1K", protocol: str = "attentive") -> Drawing:
    """Errors of `benchmark` under `protocol` over parameters and unique images; ablation rows are left out.

    Filled markers were read in the paper or its repository, open ones are quoted by others. Arrows are claims of
    papers, with their caveats below.
    """
    rows = load_published(benchmark, protocol)
    rows = rows[rows["error"].notna() & ~rows["method"].str.contains("ablation")]
    panels = [_panel(rows, x, benchmark) for x in ("params", "unique_images")]
    figure, grid = panel_grid(panels, f"error, {protocol} (%)", percent=True)
    claims = load_claims()
    claims = claims[(claims["benchmark"] == benchmark) & (claims["protocol"] == protocol)]
    notes = ["Open markers: quoted by others, not checked against the paper."]
    for claim in claims.to_dict("records"):
        _arrow(grid[["params", "unique_images"].index(claim["over"])], claim)
        notes.append(f"{claim['method_1']} against {claim['method_2']}, {claim['claim']}. {claim['caveat']}")
    legend(figure, panels)
    footnote(figure, notes)
    data = {"benchmark": benchmark, "protocol": protocol, "panels": [panel.document() for panel in panels]}
    return Drawing("published_results", figure, data | {"claims": claims.to_dict("records")}, notes[1:])


def _panel(rows: pd.DataFrame, x: str, title: str) -> Panel:
    stated = rows[rows[x].notna()]
    groups = stated["objective"].fillna(_OTHER)
    series = []
    for name in (name for name in _ORDER if (groups == name).any()):
        for evidence, kind in (("primary", "cloud"), ("secondary", "published")):
            chosen = stated[(groups == name) & (stated["evidence"] == evidence)]
            if chosen.empty:
                continue
            label = method_name(name) if kind == "cloud" else f"{method_name(name)} (quoted)"
            tone, shape = KNOWN_STYLES.get(name, Style(OKABE_ITO[5], "P"))
            at, values = chosen[x].to_numpy(dtype=float), chosen["error"].to_numpy(dtype=float)
            names = [f"{row.method} ({row.source})" for row in chosen.itertuples()]
            series.append(Series(label, at, values, tone, shape, names=names, kind=kind))
    return Panel(title, x, LABELS[x], series)


def _arrow(axes: Axes, claim: dict[str, Any]) -> None:
    """An arrow from what method 2 used to what method 1 used, at the error of method 1."""
    error = 1 - claim["accuracy_1"] / 100
    arrow = {"arrowstyle": "-|>", "color": GRAY, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 3, "mutation_scale": 8}
    axes.annotate("", (claim["x_1"], error), xytext=(claim["x_2"], error), arrowprops=arrow, zorder=2)
    middle = float(np.sqrt(claim["x_1"] * claim["x_2"]))
    axes.annotate(
        f"claimed: {claim['claim']}",
        (middle, error),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=7,
        color=GRAY,
    )
