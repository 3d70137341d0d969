"""Print the tables of README.md, from points.csv and the fits beside this file; a test holds the page to them.

python docs/studies/cifar10/tables.py
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling_studies import rank_laws
from scaling_studies.differences import compute_difference_rows, difference_rows
from scaling_studies.points import read_points

STUDY = Path(__file__).parent
D_IGPT = ["D-iGPT-CLIP", "D-iGPT-CLIP-1dec", "D-iGPT-MAE", "D-iGPT-VQ", "D-iGPT-pixels"]
METHODS = ["XTRA-k1", "XTRA-k2", "XTRA-k4", "AIM", "iGPT", "MAE", *D_IGPT]
LONG_TAILED = ["XTRA-k2-longtail", "AIM-longtail", "MAE-longtail"]
RANKED = ["XTRA-k2", "AIM", "iGPT", "MAE", "D-iGPT-CLIP"]
PRESETS = ["pico", "nano", "micro"]
# The most unique images and samples seen: where one of them varies the other is this.
IMAGES, SAMPLES = 2048, 8192
# Pairs of each question, first the one that the claim says is better.
QUESTIONS = {
    "blocks": [(f"XTRA-k{side}", "AIM") for side in (1, 2, 4)] + [("XTRA-k1", "XTRA-k2"), ("XTRA-k2", "XTRA-k4")],
    "tokens": [
        *(("D-iGPT-CLIP", f"D-iGPT-{teacher}") for teacher in ("pixels", "VQ", "MAE")),
        *((f"D-iGPT-{teacher}", "D-iGPT-pixels") for teacher in ("MAE", "VQ")),
    ],
    "decoders": [("D-iGPT-CLIP", "D-iGPT-CLIP-1dec")],
    "rivals": [*combinations(["D-iGPT-CLIP", "MAE", "AIM", "XTRA-k2", "iGPT"], 2)],
}


def tables(points: pd.DataFrame) -> Iterator[str]:
    """Every table of the page, in its order."""
    trained = points[(points["kind"] == "trained") & points["value"].notna()]
    yield by_size(points, trained)
    yield over(trained, "unique_images", [32, 64, 128, 256, 512, 1024, 2048])
    yield over(trained, "samples_seen", [1024, 1536, 2048, 3072, 4096, 6144, 8192])
    for pairs in QUESTIONS.values():
        yield differences(points, pairs)
    yield long_tails(points)
    yield laws(trained)


def by_size(points: pd.DataFrame, trained: pd.DataFrame) -> str:
    """Error of every method and size at the most images and samples, beside untrained encoders and raw pixels."""
    most = trained[(trained["unique_images"] == IMAGES) & (trained["samples_seen"] == SAMPLES)]
    untrained = points[points["kind"] == "untrained"]
    rows = []
    for method in METHODS:
        runs, before = (table[table["objective"] == method] for table in (most, untrained))
        largest = runs[runs["preset"] == "micro"]
        means = [runs.loc[runs["preset"] == preset, "value"].mean() for preset in PRESETS]
        means += [
            largest["error_attentive"].mean(),
            *(before.loc[before["preset"] == p, "value"].mean() for p in PRESETS),
        ]
        rows.append([method, *map(percent, means), f"{largest['train_flops'].mean() / 1e12:.2f}"])
    pixels = points.loc[points["kind"] == "raw_pixels", "value"].mean()
    rows.append(["raw pixels", "", "", percent(pixels), "", "", "", "", ""])
    names = [*PRESETS, "micro, attentive", *(f"{preset}, untrained" for preset in PRESETS), "TFLOPs, micro"]
    return markdown(["error (%)", *names], rows)


def over(trained: pd.DataFrame, x: str, values: Sequence[int]) -> str:
    """Error of every method at micro over `x`, the other of images and samples at its largest."""
    other, most = ("samples_seen", SAMPLES) if x == "unique_images" else ("unique_images", IMAGES)
    micro = trained[(trained["preset"] == "micro") & (trained[other] == most)]
    means = micro.groupby(["objective", x])["value"].mean()
    rows = [[method, *(percent(means.get((method, value), np.nan)) for value in values)] for method in METHODS]
    return markdown([x.replace("_", " "), *(f"{value:,}" for value in values)], rows)


def differences(points: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> str:
    """Differences of pairs of methods in points of error, at equal samples and at equal compute."""
    found = [
        {(row["method_1"], row["method_2"]): row for row in rows}
        for rows in (difference_rows(points), compute_difference_rows(points))
    ]
    rows = []
    for first, second in pairs:
        cells = [f"{first} - {second}"]
        for table in found:
            row, sign = table.get((first, second)), 1
            if row is None:
                row, sign = table.get((second, first)), -1
            cells += difference(row, sign)
        rows.append(cells)
    return markdown(["points of error", "equal samples", "lower in", "equal compute", "lower in"], rows)


def long_tails(points: pd.DataFrame) -> str:
    """Long-tailed against balanced subsets: a sample costs both the same."""
    found = {(row["method_1"], row["method_2"]): row for row in difference_rows(points)}
    rows = []
    for name in LONG_TAILED:
        balanced = name.removesuffix("-longtail")
        row, sign = (found[pair], 1) if (pair := (name, balanced)) in found else (found[balanced, name], -1)
        rows.append([f"{name} - {balanced}", *difference(row, sign)])
    return markdown(["points of error", "equal samples", "lower in"], rows)


def difference(row: dict[str, Any] | None, sign: int) -> list[str]:
    """The difference with its interval, and in how many settings the first is lower; `sign` -1 swaps the two."""
    if row is None:
        return ["nothing in common", ""]
    ends = sorted(sign * 100 * row[end] for end in ("low", "high")) if row["low"] is not None else None
    interval = f" ({ends[0]:+.1f} to {ends[1]:+.1f})" if ends else ""
    # Two equal errors are lower for neither; of hundreds of settings hardly one is.
    lower = row["num_lower"] if sign > 0 else row["num_settings"] - row["num_lower"]
    return [f"{sign * 100 * row['difference']:+.1f}{interval}", f"{lower} of {row['num_settings']}"]


def laws(trained: pd.DataFrame) -> str:
    """Extrapolation error of every law, fitted on the four smaller of seven numbers, at micro."""
    rows = []
    for x, other, most, share in (
        ("unique_images", "samples_seen", SAMPLES, 256 / IMAGES),
        ("samples_seen", "unique_images", IMAGES, 3072 / SAMPLES),
    ):
        for method in RANKED:
            runs = trained[(trained["objective"] == method) & (trained["preset"] == "micro") & (trained[other] == most)]
            runs = runs.rename(columns={"value": "error"}).dropna(subset=["error"])
            ranked = rank_laws(runs, ["m1", "m2", "m3"], x=x, y="error", share=share).set_index("law")
            small, large = (
                np.log(runs.loc[part, "error"]) for part in (runs[x] <= share * most, runs[x] > share * most)
            )
            flat = float(np.sqrt(np.mean((large - small.mean()) ** 2)))
            scores = [*(ranked["extrapolation_rmse"][law] for law in ("m1", "m2", "m3")), flat]
            rows.append([x.replace("_", " "), method, *map(percent, scores)])
    return markdown(["over", "method", "m1", "m2", "m3", "no law: the mean"], rows)


def percent(fraction: float) -> str:
    """In per cent, blank where there is none."""
    return "" if pd.isna(fraction) else f"{100 * fraction:.1f}"


def markdown(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print("\n\n".join(tables(read_points(STUDY / "points.csv"))))
