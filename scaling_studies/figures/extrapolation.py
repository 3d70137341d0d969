"""Extrapolation checks: a law fitted to the lower half of x, seen on the upper (Alabdulmohsin et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scaling_studies.axes import OKABE_ITO, footnote, styled
from scaling_studies.figures.drawing import Drawing, NothingToDrawError
from scaling_studies.figures.error_curves import axis_label, is_error, numbers, value_label
from scaling_studies.figures.panels import legend, panel_grid
from scaling_studies.figures.series import Line, Panel, Series
from scaling_studies.laws import Array
from scaling_studies.trust import Extrapolation

_GRID = 100
_BLACK = "#000000"


@dataclass(frozen=True, eq=False)
class Check:
    """Points `x`, `y` of one curve, the `cutoff` up to which laws were fitted, and per law its line and RMSE."""

    title: str
    x_name: str
    x: Array
    y: Array
    cutoff: float
    lines: dict[str, tuple[Array, Array]]
    rmse: dict[str, float]


def checked_laws(title: str, points: pd.DataFrame, tests: dict[str, Extrapolation], *, y: str) -> Check:
    """The check of several laws on the same `points`; `tests` per law as `trust.extrapolation_test` returns them."""
    if not tests:
        raise NothingToDrawError("no law could be tested on its upper half")
    first = next(iter(tests.values()))
    name = first.variable
    rows = numbers(points, name, y).sort_values(name)
    x, grid = rows[name].to_numpy(), np.geomspace(rows[name].min(), rows[name].max(), _GRID)
    for law, test in tests.items():
        if len(test.fit.data.x_names) != 1:
            raise ValueError(f"law {law!r} is in several variables: draw the check of a law in one")
        if test.cutoff != first.cutoff:
            raise ValueError(f"law {law!r} was tested at cutoff {test.cutoff:g}, others at {first.cutoff:g}")
    lines = {law: (grid, test.fit.predict(grid)) for law, test in tests.items()}
    return Check(title, name, x, rows[y].to_numpy(), first.cutoff, lines, {k: test.rmse for k, test in tests.items()})


@styled
def extrapolation_checks(checks: Sequence[Check], *, y: str = "error") -> Drawing:
    """One panel per check: solid up to the cutoff, dashed above it, where the law has seen no point."""
    if not checks:
        raise NothingToDrawError("no curve has enough points in its lower half for an extrapolation test")
    laws = list(dict.fromkeys(law for check in checks for law in check.lines))
    panels = [_panel(check, laws) for check in checks]
    figure, grid = panel_grid(panels, value_label(y), percent=is_error(y))
    for axes, check in zip(grid, checks, strict=True):
        axes.axvspan(check.cutoff, check.x.max() * 2, color="#f2f2f2", zorder=0, linewidth=0)
    legend(figure, panels)
    note = "Dashed on gray: predicted from the points on white alone; RMSE of log error there, by law."
    footnote(figure, [note])
    return Drawing("extrapolation", figure, {"y": y, "checks": [_document(check) for check in checks]}, [])


def _panel(check: Check, laws: list[str]) -> Panel:
    empty = np.array([])
    measured = Series("measured", check.x, check.y, _BLACK, "o", kind="cloud")
    lower = float(check.x[check.x <= check.cutoff].max())
    lines = [
        Series(law, empty, empty, OKABE_ITO[laws.index(law) % 6], "", line=Line(x, y, (float(x[0]), lower)))
        for law, (x, y) in check.lines.items()
    ]
    scores = ", ".join(f"{law} {rmse:.3f}" for law, rmse in sorted(check.rmse.items(), key=lambda item: item[1])[:3])
    title = f"{check.title}\nRMSE above the cutoff: {scores}".strip()
    return Panel(title, check.x_name, axis_label(check.x_name), [measured, *lines])


def _document(check: Check) -> dict[str, Any]:
    lines = {law: {"x": x, "y": y} for law, (x, y) in check.lines.items()}
    return vars(check) | {"lines": lines}
