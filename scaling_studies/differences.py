"""Two methods at equal settings: the difference of their errors over runs that differ in the method alone.

It needs no law, and says what curves that cross or stay flat do not: which method is better, on the average over the
settings that were measured for both.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from scaling_studies.points import chosen
from scaling_studies.statements import method_order

# What is equal. Runs of one size and seed share images, and one run its steps with its branches: they are one group.
SETTING = ("preset", "unique_images", "samples_seen", "seed")
_GROUP = ["preset", "seed"]
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


def _mean_with_interval(difference: pd.Series) -> dict[str, Any]:
    groups = difference.groupby(level=_GROUP).mean().to_numpy()
    mean, low, high = float(groups.mean()), None, None
    if len(groups) > 1:
        width = stats.t.ppf((1 + LEVEL) / 2, len(groups) - 1) * groups.std(ddof=1) / np.sqrt(len(groups))
        low, high = mean - float(width), mean + float(width)
    counts = {"num_settings": len(difference), "num_groups": len(groups), "num_lower": int((difference < 0).sum())}
    return {"difference": mean, "low": low, "high": high} | counts
