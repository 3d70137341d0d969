"""What a reader must know about tune cells, the runs of which the one of lowest val_loss is a point of the study."""

from __future__ import annotations

import re

import pandas as pd

# A key with a number at `-key_value` in a run's name.
_TUNED = re.compile(r"-([A-Za-z]\w*?)_(\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?=-|$)")


def cell_warnings(points: pd.DataFrame) -> list[str]:
    """Sentences on cells whose choice is not final, and on choices at the edge of the values that were tried.

    `points` are those of the table: a cell chooses by val_loss, whatever errors are fitted.
    """
    found = []
    at_edge: dict[str, list[str]] = {}
    for cell, rows in points.groupby("cell", sort=True):
        has_loss = rows["val_loss"].notna()
        num_open = int((~has_loss | (rows["status"] != "completed")).sum())
        if rows["value"].notna().any() and not has_loss.any():
            found.append(f"tune cell {cell}: no run has a val_loss, so that none is chosen and none is on a curve")
        elif num_open:
            found.append(f"tune cell {cell}: {num_open} of {len(rows)} runs have no val_loss, its choice is not final")
        else:
            for edge in _edges(rows):
                at_edge.setdefault(edge, []).append(str(cell))
    return found + [
        f"the chosen run has the {edge} that was tried, a better one may lie beyond: tune cell {', '.join(cells)}"
        for edge, cells in at_edge.items()
    ]


def _edges(rows: pd.DataFrame) -> list[str]:
    """The keys in the names of a cell's runs of which it chose the least or the greatest value: `least lr, 0.1,`."""
    tried = {str(name): {key: float(value) for key, value in _TUNED.findall(str(name))} for name in rows["name"]}
    found = []
    for best in rows["name"][rows["chosen"].fillna(False).astype(bool)]:
        for key, value in tried[str(best)].items():
            values = {each.get(key, value) for each in tried.values()}
            if len(values) > 1 and value in (min(values), max(values)):
                found.append(f"{'least' if value == min(values) else 'greatest'} {key}, {value:g},")
    return found
