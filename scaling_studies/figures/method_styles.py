"""The color and the marker of every method of a figure or a study: one mapping for all of its figures.

The five methods of `statements.METHOD_NAMES` have their own. Where there is any other name (a variant such as
`XTRA-k2`), colors and markers go round by place in the order of the methods: up to seven methods differ in both, up to
84 in the pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from scaling_studies.axes import MARKERS, OKABE_ITO
from scaling_studies.figures.drawing import NothingToDrawError
from scaling_studies.statements import method_order

# So many places before a pair of color and marker comes again.
MOST_STYLES = math.lcm(len(OKABE_ITO), len(MARKERS))


class Style(NamedTuple):
    """How the points and lines of one method look."""

    color: str
    marker: str


KNOWN_STYLES = {
    name: Style(OKABE_ITO[place], MARKERS[place]) for place, name in enumerate(("xtra", "aim", "digpt", "igpt", "mae"))
}


def place_style(place: int) -> Style:
    """The style of the series at `place`, from 0; those of the first `MOST_STYLES` places all differ."""
    return Style(OKABE_ITO[place % len(OKABE_ITO)], MARKERS[place % len(MARKERS)])


def method_styles(methods: Iterable[str]) -> dict[str, Style]:
    """The style of every one of `methods`, in the order of the methods. Raises `NothingToDrawError` for too many."""
    ordered = sorted(set(methods), key=method_order)
    if len(ordered) > MOST_STYLES:
        raise NothingToDrawError(f"there are {len(ordered)} methods, {MOST_STYLES} can be told apart: choose some")
    if all(name in KNOWN_STYLES for name in ordered):
        return {name: KNOWN_STYLES[name] for name in ordered}
    return {name: place_style(place) for place, name in enumerate(ordered)}


def study_styles(points: pd.DataFrame) -> dict[str, Style]:
    """The styles of the methods that have encoders in a study's table of points."""
    rows = points[points["kind"].isin(["trained", "untrained"])]
    return method_styles(rows["objective"].dropna().astype(str))
