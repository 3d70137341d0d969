"""Published results and claims of vision pretraining, with their sources: reference points for figures and reports.

`published_results.csv` holds one row per measurement as its paper or repository states it, `published_claims.csv` the
ratios that papers claim, each with what a reader must know before believing it.
"""

from __future__ import annotations

from importlib import resources

import numpy as np
import pandas as pd

from scaling_studies.figures.series import Series
from scaling_studies.statements import METHOD_NAMES

_MILLION = 1e6
# The one data set whose name stands for its size: the ILSVRC 2012 training set.
_IMAGENET_1K = 1_281_167
_GRAY = "#444444"


def load_published(benchmark: str | None = None, protocol: str | None = None) -> pd.DataFrame:
    """The published results, of one `benchmark` and `protocol` where given.

    Columns of the file (`method, architecture, pretrain_dataset, epochs, protocol, benchmark, metric, value, evidence,
    source`), and as points: `objective` (ours, or blank), `params`, `unique_images`, `samples_seen`, and `error` as a
    fraction for top-1 accuracies. `unique_images` of ImageNet-1K is filled in with 1,281,167; other blanks stay.
    `evidence` is `primary` (read in the paper or its repository) or `secondary` (quoted by others, not checked).

    Raises `ValueError` for a benchmark or protocol that no row has.
    """
    table = _read("published_results.csv")
    for name, wanted in (("benchmark", benchmark), ("protocol", protocol)):
        if wanted is None:
            continue
        if wanted not in set(table[name]):
            raise ValueError(f"{name} {wanted!r} is none of {', '.join(sorted(table[name].unique()))}")
        table = table[table[name] == wanted]
    images = _MILLION * table["pretrain_images_m"]
    images = images.where(images.notna() | (table["pretrain_dataset"] != "IN-1K"), _IMAGENET_1K)
    is_accuracy = table["metric"] == "top1_acc_pct"
    return table.assign(
        objective=table["method"].map(_objective),
        params=_MILLION * table["params_m"],
        unique_images=images,
        samples_seen=_MILLION * table["samples_seen_m"],
        error=(1 - table["value"] / 100).where(is_accuracy),
    ).reset_index(drop=True)


def load_claims() -> pd.DataFrame:
    """The claimed ratios: method 1 needs `x_1` of `over` where method 2 needs `x_2`, with `caveat` and `source`."""
    return _read("published_claims.csv")


def reference_series(x: str, *, benchmark: str, protocol: str, y: str = "error") -> Series:
    """Published points for an axis `x` (`params`, `unique_images`, `samples_seen`), as open markers on any figure.

    Only rows that state x and the value are points. Raises `ValueError` when none does.
    """
    rows = load_published(benchmark, protocol)
    if x not in ("params", "unique_images", "samples_seen") or y != "error":
        raise ValueError(f"published results have no {x!r} against {y!r}: errors against params, unique_images, ...")
    rows = rows[rows[x].notna() & rows[y].notna()]
    rows = rows[~rows["method"].str.contains("ablation")]
    if rows.empty:
        raise ValueError(f"no published result of {benchmark}, {protocol} states {x}")
    names = [f"{row.method} ({row.source})" for row in rows.itertuples()]
    label = f"published: {benchmark}, {protocol}"
    at, values = rows[x].to_numpy(dtype=np.float64), rows[y].to_numpy(dtype=np.float64)
    return Series(label, at, values, _GRAY, "d", names=names, kind="published")


def _objective(method: str) -> str | None:
    """Our name of a method that a row is about; `None` for methods that we do not train."""
    first = method.replace("(", " ").split()[0]
    names = {known.lower(): name for name, known in METHOD_NAMES.items()}
    stem = first if first.lower() in names else first.split("-")[0]
    return names.get(stem.lower())


def _read(name: str) -> pd.DataFrame:
    with resources.files("scaling_studies").joinpath(name).open(encoding="utf-8") as file:
        return pd.read_csv(file)
