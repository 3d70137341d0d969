"""Simulated points with a known law, for the scripts and for trying things out. No measurement stands behind them."""

from __future__ import annotations

import numpy as np
import pandas as pd

# L = E + A / N^alpha + B / (share * D)^beta: method "aim" makes of 3 D images what "xtra" makes of D.
E, A, B, ALPHA, BETA = 0.12, 120.0, 150.0, 0.42, 0.38
SHARES = {"xtra": 1.0, "aim": 1 / 3}
PARAMS = (5e6, 2e7, 8e7, 3e8)
SAMPLES = (3e7, 1e8, 3e8, 6e8, 1e9, 2e9, 3e9, 4e9)
BUDGETS = (1e16, 1e17, 1e18, 1e19)
_NOISE = 0.006


def example_points() -> pd.DataFrame:
    """A grid of 4 sizes and 8 numbers of samples for two methods: `objective, params, samples_seen, flops, error`."""
    rows = [(name, n, d) for name in SHARES for n in PARAMS for d in SAMPLES]
    return _table(rows)


def example_isoflop_points() -> pd.DataFrame:
    """Seven sizes at each of four budgets (column `budget`, `flops = 6 N D`) of one method."""
    rows = [
        ("xtra", n, budget / 6 / n) for budget in BUDGETS for n in np.sqrt(budget / 6 / 30) * np.geomspace(0.1, 10, 7)
    ]
    return _table(rows).assign(budget=np.repeat(BUDGETS, 7))


def _table(rows: list[tuple[str, float, float]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["objective", "params", "samples_seen"])
    table.index = pd.RangeIndex(1, len(table) + 1, name="row")
    used = table["samples_seen"] * table["objective"].map(SHARES)
    error = E + A / table["params"] ** ALPHA + B / used**BETA
    noise = np.exp(_NOISE * np.random.default_rng(0).standard_normal(len(table)))
    return table.assign(flops=6 * table["params"] * table["samples_seen"], error=error * noise)
