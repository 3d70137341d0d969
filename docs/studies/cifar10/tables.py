"""Print the tables of README.md, from points.csv beside this file; a test holds the page to them.

python docs/studies/cifar10/tables.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling_studies import rank_laws
from scaling_studies.differences import compute_difference_rows, difference_rows
from scaling_studies.points import read_points
from scaling_studies.statements import count

STUDY = Path(__file__).parent
D_IGPT = ["D-iGPT-CLIP", "D-iGPT-CLIP-1dec", "D-iGPT-MAE", "D-iGPT-VQ", "D-iGPT-pixels"]
METHODS = ["XTRA-k1", "XTRA-k2", "XTRA-k4", "AIM", "iGPT", "MAE", *D_IGPT]
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
    "longtail": [(f"{name}-longtail", name) for name in ("XTRA-k2", "AIM", "MAE")],
}


def tables(points: pd.DataFrame) -> Iterator[str]:
    """Every table of the page, in its order."""
    trained = points[(points["kind"] == "trained") & points["value"].notna()]
    yield by_size(points, trained)
    yield over(trained, "unique_images", [32, 64, 128, 256, 512, 1024, 2048])
    yield over(trained, "samples_seen", [1024, 1536, 2048, 3072, 4096, 6144, 8192])
    yield gains(points, trained)
    yield noise(trained)
    yield from differences(points)
    yield laws(trained)


def by_size(points: pd.DataFrame, trained: pd.DataFrame) -> str:
    """Error of every method and size at the most images and samples."""
    most = trained[(trained["unique_images"] == IMAGES) & (trained["samples_seen"] == SAMPLES)]
    rows = []
    for method in METHODS:
        of_size = [most[(most["objective"] == method) & (most["preset"] == preset)] for preset in PRESETS]
        errors = [percent(runs["value"].mean()) for runs in of_size]
        attentive = percent(of_size[-1]["error_attentive"].mean())
        measured = [runs for runs in of_size if len(runs)]
        flops = " / ".join(f"{runs['train_flops'].mean() / 1e12:.2g}" for runs in measured)
        encoder, heads = (
            " / ".join(count(runs[column].mean()) for runs in measured) for column in ("params_encoder", "params_total")
        )
        rows.append([method, *errors, attentive, flops, encoder, heads])
    pixels = percent(points.loc[points["kind"] == "raw_pixels", "value"].mean())
    rows.append(["raw pixels", pixels, pixels, pixels, "", "", "", ""])
    sizes = [*PRESETS, "micro, attentive", "training TFLOPs", "parameters: encoder", "parameters: trained"]
    return markdown(["error (%)", *sizes], rows)


def gains(points: pd.DataFrame, trained: pd.DataFrame) -> str:
    """How much lower the error is than that of the same encoder untrained, in points; the mean over unique images.

    iGPT's untrained encoders are one per palette, that is per set of images; each run is held against its own.
    """
    most = trained[(trained["samples_seen"] == SAMPLES) & trained["unique_images"].isin([32, 128, 512, 2048])]
    untrained = points[points["kind"] == "untrained"]
    rows = []
    for method in METHODS:
        cells, beaten, compared = [], 0, 0
        for preset in PRESETS:
            runs, before = (t[(t["objective"] == method) & (t["preset"] == preset)] for t in (most, untrained))
            by = ["seed", "unique_images"] if method == "iGPT" else ["seed"]
            # Rows of untrained encoders have no images; iGPT's have them in their names.
            images = before["name"].str.extract(r"-u(\d+)", expand=False).astype("Int64")
            own = before.assign(unique_images=images).groupby(by, dropna=False)["value"].mean()
            reference = runs.set_index(by).index.map(own).to_numpy(dtype=float)
            errors = runs["value"].to_numpy(dtype=float)
            # Two binomial errors of 10,000 test images, taken as independent.
            noise = 1.96 * np.sqrt(runs["sigma"].to_numpy(dtype=float) ** 2 + before["sigma"].mean() ** 2)
            gain = (reference - errors)[known := np.isfinite(reference)]
            beaten, compared = beaten + int((gain > noise[known]).sum()), compared + len(gain)
            cells += [percent(before["value"].mean()), f"{100 * np.mean(gain):+.1f}" if len(gain) else ""]
        rows.append([method, *cells, f"{beaten} of {compared}"])
    names = [name for preset in PRESETS for name in (f"{preset}, untrained", "gain")]
    return markdown(["points of error", *names, "runs beyond noise"], rows)


def noise(trained: pd.DataFrame) -> str:
    """Standard deviation of a run's error between two seeds, in points, beside the binomial one."""
    rows = []
    for preset in PRESETS:
        runs = trained[trained["preset"] == preset]
        seeds = runs.pivot_table(index=["objective", "unique_images", "samples_seen"], columns="seed", values="value")
        apart = (seeds[0] - seeds[1]).dropna() if seeds.shape[1] > 1 else pd.Series(dtype=float)
        spread = 100 * np.sqrt(np.mean(apart.astype(float) ** 2) / 2) if len(apart) else np.nan
        rows.append(
            [preset, "" if np.isnan(spread) else f"{spread:.2f}", f"{100 * runs['sigma'].mean():.2f}", str(len(apart))]
        )
    return markdown(["encoder", "between seeds", "binomial", "pairs of runs"], rows)


def over(trained: pd.DataFrame, x: str, values: Sequence[int]) -> str:
    """Error of every method at micro over `x`, the other of images and samples at its largest."""
    other, most = ("samples_seen", SAMPLES) if x == "unique_images" else ("unique_images", IMAGES)
    micro = trained[(trained["preset"] == "micro") & (trained[other] == most)]
    means = micro.groupby(["objective", x])["value"].mean()
    rows = [[method, *(percent(means.get((method, value), np.nan)) for value in values)] for method in METHODS]
    return markdown([x.replace("_", " "), *(f"{value:,}" for value in values)], rows)


def differences(points: pd.DataFrame) -> Iterator[str]:
    """Per question the differences of pairs of methods in points of error, at equal samples and at equal compute."""
    at_samples, at_compute = (
        {(row["method_1"], row["method_2"]): row for row in rows}
        for rows in (difference_rows(points), compute_difference_rows(points))
    )
    for pairs in QUESTIONS.values():
        rows = [[f"{first} - {second}", *difference(at_samples, first, second)] for first, second in pairs]
        # A sample costs long-tailed and balanced subsets the same, and their runs are of one length.
        if not pairs[0][0].endswith("-longtail"):
            rows = [[*row, *difference(at_compute, *pair)] for row, pair in zip(rows, pairs, strict=True)]
        columns = ["mean", "over seeds", "over sizes"]
        names = [" / ".join(PRESETS), *columns, *["equal FLOPs: " + " / ".join(PRESETS), *columns][: len(rows[0]) - 5]]
        yield markdown(["points of error", *names], rows)


def difference(table: dict[tuple[str, str], dict[str, Any]], first: str, second: str) -> list[str]:
    """Error of `first` minus that of `second`: per size, the mean, and its two intervals."""
    row, sign = table.get((first, second)), 100
    if row is None:
        row, sign = table.get((second, first)), -100
    if row is None:
        return ["nothing in common", "", "", ""]
    by_preset = row["by_preset"]
    sizes = " / ".join(f"{sign * by_preset[preset]:+.1f}" if preset in by_preset else "-" for preset in PRESETS)
    intervals = []
    for name in ("seed", "size"):
        ends = [row[f"{name}_{end}"] for end in ("low", "high")]
        known = None if ends[0] is None else sorted(sign * end for end in ends)
        intervals.append("" if known is None else f"{known[0]:+.1f} to {known[1]:+.1f}")
    return [sizes, f"{sign * row['difference']:+.1f}", *intervals]


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
            errors, is_small = np.log(runs["error"]), runs[x] <= share * runs[x].max()
            last = errors[runs[x] == runs.loc[is_small, x].max()].mean()
            flat = [
                float(np.sqrt(np.mean((errors[~is_small] - guess) ** 2))) for guess in (errors[is_small].mean(), last)
            ]
            scores = [*(ranked["extrapolation_rmse"][law] for law in ("m1", "m2", "m3")), *flat]
            rows.append([x.replace("_", " "), method, *(percent(score) or "not fitted" for score in scores)])
    return markdown(["over", "method", "m1", "m2", "m3", "no law: their mean", "no law: the largest's"], rows)


def percent(fraction: float) -> str:
    """In per cent, blank where there is none."""
    return "" if pd.isna(fraction) else f"{100 * fraction:.1f}"


def markdown(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print("\n\n".join(tables(read_points(Path(sys.argv[1]) if len(sys.argv) > 1 else STUDY / "points.csv"))))
