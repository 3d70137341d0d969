"""A finished figure with the numbers it shows, and how both are written: PNG, SVG, PDF and JSON.

Equal inputs give equal bytes: no file carries a date, and ids in the SVG hang on a fixed salt.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from arvis_scale.atomic import whole_file, write_json
from scaling_studies.axes import STYLE

FIGURE_SCHEMA = 1
SUFFIXES = ("png", "svg", "pdf")
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


class NothingToDrawError(ValueError):
    """The data do not hold what a figure shows; the message says what is missing, in one sentence."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure; `data` holds every number on it, `warnings` are the sentences that stand under it."""

    name: str
    figure: Figure
    data: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def save(self, stem: Path | str) -> list[Path]:
        """Write STEM.png (200 dpi), STEM.svg, STEM.pdf and STEM.json; returns the paths."""
        stem = Path(stem)
        paths = []
        with _laid_out(self.figure):
            for suffix in SUFFIXES:
                paths.append(stem.with_name(f"{stem.name}.{suffix}"))
                with whole_file(paths[-1]) as temporary:
                    temporary.write_bytes(figure_bytes(self.figure, suffix))
        paths.append(stem.with_name(f"{stem.name}.json"))
        write_json(paths[-1], self.document())
        return paths

    def document(self) -> dict[str, Any]:
        """What STEM.json holds: NaN and infinities are null, since JSON has none."""
        head = {"schema_version": FIGURE_SCHEMA, "figure": self.name, "warnings": self.warnings}
        return head | plain(self.data)


@contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """Lay the figure out once for all formats, which are then equal and sooner written."""
    engine = figure.get_layout_engine()
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
        figure.set_layout_engine(None)
    try:
        yield
    finally:
        figure.set_layout_engine(engine)


def figure_bytes(figure: Figure, suffix: str) -> bytes:
    """The figure as a `png`, `svg` or `pdf` file."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=suffix, dpi=200, metadata=_METADATA[suffix], facecolor="white")
    return buffer.getvalue()


def plain(value: Any) -> Any:
    """`value` as JSON takes it: arrays as lists, NumPy numbers as Python's, numbers that are not finite as null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
