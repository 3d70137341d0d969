"""Two methods at equal settings, or at equal training compute: the difference of their errors.

It needs no law, and says what curves that cross or stay flat do not: which method is better, on the average over what
was measured for both.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import integrate, stats

from scaling_studies.points import chosen
from scaling_studies.statements import method_order

# What is equal. Runs of one size and seed share images, and one run its steps with its branches: they are one group.
SETTING = ("preset", "unique_images", "samples_seen", "seed")
_GROUP = ["preset", "seed"]
_CURVE = ["preset", "unique_images", "seed"]
LEVEL = 0.95


def difference_rows(points: pd.DataFrame) -> list[dict[str, Any]]:
    """Per pair of methods `difference`, the mean of error 1 - error 2, and its 95% interval `low` to `high`.

    The mean is over groups (encoder size and seed) of `num_groups`, each the mean over its settings; the interval is
    Student's t over the groups, null for a single one. It holds for these test images, which all runs share: their
    choice is not in it. `num_settings` were measured for both, in `num_lower` of them error 1 is the lower one.
    """
    rows = chosen(points)
    rows = rows[rows["kind"] == "trained"]
    errors = rows.pivot_table(index=list(SETTING), columns="objective", values="value", aggfunc="mean")
    found = []
    for first, second in combinations(sorted(errors.columns, key=method_order), 2):
        difference = (errors[first] - errors[second]).dropna().astype(float)
        if len(difference):
            found.append({"method_1": first, "method_2": second} | _mean_with_interval(difference))
    return found


def compute_difference_rows(points: pd.DataFrame) -> list[dict[str, Any]]:
    """`difference_rows` at equal training FLOPs instead of equal samples.

    A method's runs of one encoder size, images and seed that differ in length are its curve of error over log FLOPs,
    straight from run to run. The difference of two curves is its mean over the FLOPs that both cover, nothing beyond,
    and counts as one of `num_settings`; `flops_low` to `flops_high` holds all of these. Curves that share no FLOPs are
    not compared.
    """
    rows = chosen(points)
    rows = rows[(rows["kind"] == "trained") & (rows["train_flops"] > 0)].dropna(subset=["value"])
    curves: dict[str, dict[Any, pd.Series]] = {}
    for (method, *setting), found in rows.groupby(["objective", *_CURVE]):
        curve = found.groupby("train_flops")["value"].mean()
        if len(curve) > 1:
            curves.setdefault(str(method), {})[tuple(setting)] = curve
    compared = []
    for first, second in combinations(sorted(curves, key=method_order), 2):
        shared = [setting for setting in curves[first] if setting in curves[second]]
        apart = {setting: _apart(curves[first][setting], curves[second][setting]) for setting in shared}
        met = {setting: found for setting, found in apart.items() if found is not None}
        if met:
            differences = pd.Series(
                [difference for difference, _, _ in met.values()], pd.MultiIndex.from_tuples(met, names=_CURVE)
            )
            ends = {
                "flops_low": min(low for _, low, _ in met.values()),
                "flops_high": max(it[2] for it in met.values()),
            }
            compared.append({"method_1": first, "method_2": second} | _mean_with_interval(differences) | ends)
    return compared


def _apart(first: pd.Series, second: pd.Series) -> tuple[float, float, float] | None:
    """Mean difference of two curves over log FLOPs where both are, and where that is; `None` where it is nowhere."""
    logs = [np.log(curve.index.to_numpy(dtype=np.float64)) for curve in (first, second)]
    low, high = max(log.min() for log in logs), min(log.max() for log in logs)
    if low >= high:
        return None
    # Both curves are straight between these places, so that the trapezoid rule is exact.
    at = np.unique(np.clip(np.concatenate([*logs, [low, high]]), low, high))
    values = [np.interp(at, log, curve.to_numpy()) for log, curve in zip(logs, (first, second), strict=True)]
    mean = integrate.trapezoid(values[0] - values[1], at) / (high - low)
    return float(mean), float(np.exp(low)), float(np.exp(high))


def _mean_with_interval(difference: pd.Series) -> dict[str, Any]:
    groups = difference.groupby(level=_GROUP).mean().to_numpy()
    mean, low, high = float(groups.mean()), None, None
    if len(groups) > 1:
        width = stats.t.ppf((1 + LEVEL) / 2, len(groups) - 1) * groups.std(ddof=1) / np.sqrt(len(groups))
        low, high = mean - float(width), mean + float(width)
    counts = {"num_settings": len(difference), "num_groups": len(groups), "num_lower": int((difference < 0).sum())}
    return {"difference": mean, "low": low, "high": high} | counts
