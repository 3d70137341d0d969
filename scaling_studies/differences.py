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

SETTING = ("preset", "unique_images", "samples_seen", "seed")
_CURVE = ["preset", "unique_images", "seed"]
LEVEL = 0.95


def difference_rows(points: pd.DataFrame) -> list[dict[str, Any]]:
    """Per pair of methods `difference`, the mean of error 1 - error 2 over runs of equal settings.

    Settings are averaged within a seed, seeds within an encoder size (`by_preset`), and sizes in the end. There are two
    95% intervals, each null where there is nothing to take it from:

    - `seed_low` to `seed_high`: what other seeds would give at these very sizes; Student's t with the variance between
      seeds pooled over sizes, which takes the sizes' seeds as independent;
    - `size_low` to `size_high`: what other sizes would give; Student's t over the sizes' means, of which seeds are no
      further ones, however many: more of them narrow the first interval alone.

    Both hold for these test images, which all runs share. Of images and samples only those enter that both methods have
    at every one of their sizes and seeds, so that no two means differ in what they are over; where there are none, all
    enter and there are no intervals. `num_settings` is their number over sizes and seeds, in `num_lower` of them error
    1 is the lower one; those of one size share images and, where runs branch, steps, and are no trials.
    """
    rows = chosen(points)
    # Of a stream the number of images is unknown, and equal to that of another such stream.
    rows = rows[rows["kind"] == "trained"].fillna({"unique_images": 0})
    errors = rows.pivot_table(index=list(SETTING), columns="objective", values="value", aggfunc="mean")
    found = []
    for first, second in combinations(sorted(errors.columns, key=method_order), 2):
        difference = (errors[first] - errors[second]).dropna().astype(float)
        if len(difference):
            found.append({"method_1": first, "method_2": second} | _mean_with_intervals(difference, _by_size(rows)))
    return found


def _by_size(rows: pd.DataFrame) -> list[str]:
    return list(rows.groupby("preset")["params_encoder"].mean().sort_values().index)


def compute_difference_rows(points: pd.DataFrame) -> list[dict[str, Any]]:
    """`difference_rows` at equal training FLOPs instead of equal samples.

    A method's runs of one encoder size, images and seed that differ in length are its curve of error over log FLOPs,
    straight from run to run. The difference of two curves is its mean over the FLOPs that both cover, nothing beyond,
    and counts as one of `num_settings`; `flops_low` to `flops_high` holds all of these. Curves that share no FLOPs are
    not compared.
    """
    rows = chosen(points)
    rows = rows[(rows["kind"] == "trained") & (rows["train_flops"] > 0)].dropna(subset=["value"])
    curves = _curves(rows.fillna({"unique_images": 0}))
    compared = []
    for first, second in combinations(sorted(curves, key=method_order), 2):
        shared = [setting for setting in curves[first] if setting in curves[second]]
        apart = {setting: _apart(curves[first][setting], curves[second][setting]) for setting in shared}
        met = {setting: found for setting, found in apart.items() if found is not None}
        if met:
            settings = pd.MultiIndex.from_tuples(met, names=_CURVE)
            row = _mean_with_intervals(pd.Series([mean for mean, _, _ in met.values()], settings), _by_size(rows))
            ends = {"flops_low": min(it[1] for it in met.values()), "flops_high": max(it[2] for it in met.values())}
            compared.append({"method_1": first, "method_2": second} | row | ends)
    return compared


def _curves(rows: pd.DataFrame) -> dict[str, dict[Any, pd.Series]]:
    """Per method its curves by encoder size, images and seed, over the lengths that all seeds of the size have."""
    curves: dict[str, dict[Any, pd.Series]] = {}
    for (method, preset, images), runs in rows.groupby(["objective", "preset", "unique_images"]):
        seeds = runs.groupby("samples_seen")["seed"].nunique()
        shared = runs[runs["samples_seen"].isin(seeds.index[seeds == runs["seed"].nunique()])]
        for seed, found in shared.groupby("seed"):
            curve = _curve(found)
            if curve is not None:
                curves.setdefault(str(method), {})[preset, images, seed] = curve
    return curves


def _curve(runs: pd.DataFrame) -> pd.Series | None:
    """Error by training FLOPs of runs that differ in length; `None` for one length, or where something else differs."""
    lengths = runs.groupby("samples_seen")[["train_flops", "value"]].mean()
    per_sample = runs["train_flops"].astype(float) / runs["samples_seen"].astype(float)
    if len(lengths) < 2 or per_sample.max() > 1.001 * per_sample.min():
        return None
    return lengths.set_index("train_flops")["value"].sort_index()


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


def _mean_with_intervals(difference: pd.Series, presets: list[str]) -> dict[str, Any]:
    """The mean of `difference`, indexed by preset and seed at least, with the intervals of `difference_rows`.

    `presets` are in the order of their size.
    """
    difference, is_balanced = _balanced(difference)
    by_seed = difference.groupby(level=["preset", "seed"]).mean()
    sizes = by_seed.groupby(level="preset")
    means, num_seeds = sizes.mean(), sizes.size()
    mean = float(means.mean())
    between = between_seeds = None
    if is_balanced and len(means) > 1:
        between = (float(means.std(ddof=1)) / np.sqrt(len(means)), len(means) - 1)
    left = len(by_seed) - len(means)
    if is_balanced and left:
        variance = float(((by_seed - sizes.transform("mean")) ** 2).sum()) / left
        between_seeds = (float(np.sqrt(variance * (1 / num_seeds).sum())) / len(means), left)
    seed_low, seed_high = _interval(mean, between_seeds)
    size_low, size_high = _interval(mean, between)
    return {
        "difference": mean,
        "by_preset": {preset: float(means[preset]) for preset in presets if preset in means},
        "seed_low": seed_low,
        "seed_high": seed_high,
        "size_low": size_low,
        "size_high": size_high,
        "num_settings": len(difference),
        "num_lower": int((difference < 0).sum()),
    }


def _balanced(difference: pd.Series) -> tuple[pd.Series, bool]:
    """The settings that every preset and seed has, and True; all of them and False where there are none."""
    groups = ["preset", "seed"]
    others = [name for name in difference.index.names if name not in groups]
    frame = difference.rename("difference").reset_index()
    num_groups = len(frame.drop_duplicates(groups))
    count = frame.groupby(others)["difference"].transform("size")
    everywhere = (count == num_groups).to_numpy()
    return (difference[everywhere], True) if everywhere.any() else (difference, False)


def _interval(mean: float, spread: tuple[float, int] | None) -> tuple[float | None, float | None]:
    """Student's interval of a mean with `spread`, its standard error and degrees of freedom."""
    if spread is None:
        return None, None
    width = float(stats.t.ppf((1 + LEVEL) / 2, spread[1])) * spread[0]
    return mean - width, mean + width
