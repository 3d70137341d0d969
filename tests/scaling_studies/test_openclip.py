"""Cherti et al. 2022 (arXiv 2212.07143): their line reproduced, and what our fits make of their measurements."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling_studies import envelope, fit_law

DATA = Path(os.environ.get("ARVIS_DATA_DIR", Path(__file__).parents[3] / "shared" / "data")) / "openclip-scaling"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is missing; set ARVIS_DATA_DIR to its parent")


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    """Zero-shot ImageNet error of the LAION models with their parameter counts."""
    results = pd.read_csv(DATA / "zeroshot_results.csv")
    chosen = (results["downstream_dataset"] == "imagenet1k") & (results["upstream_dataset"] != "CLIP-WIT")
    sizes = pd.read_csv(DATA / "arch_info.csv").set_index("model")["mparams"]
    table = results[chosen].reset_index(drop=True)
    return table.assign(error=1 - table["acc1"], params=1e6 * table["arch"].map(sizes))


def test_the_published_line_is_reproduced(points: pd.DataFrame) -> None:
    line = envelope(points, compute="gmacs_total", y="error").line
    assert len(points) == 29
    assert round(line.scale, 3) == 5.858
    assert round(line.exponent, 4) == -0.1114


def test_per_architecture_more_data_fall_faster(points: pd.DataFrame) -> None:
    for arch in ("ViT-B-32", "ViT-B-16", "ViT-L-14"):
        fits = {
            data: fit_law(rows, "m1", x="samples_seen", y="error")
            for data, rows in points[points["arch"] == arch].groupby("upstream_dataset")
        }
        assert fits["LAION-2B"].params["c"] < fits["LAION-80M"].params["c"] < 0
        low, high = fits["LAION-2B"].interval("c")
        assert low < fits["LAION-2B"].params["c"] < high


def test_per_data_scale_the_exponent_of_compute_is_known(points: pd.DataFrame) -> None:
    slopes = {
        data: fit_law(rows, "m1", x="gmacs_total", y="error") for data, rows in points.groupby("upstream_dataset")
    }
    large, small = (slopes[name].interval("c") for name in ("LAION-2B", "LAION-80M"))
    # On 80M images compute buys less: the intervals do not meet.
    assert large[1] < small[0] < 0


def test_on_two_billion_images_the_parametric_law_holds_within_two_per_cent(points: pd.DataFrame) -> None:
    rows = points[points["upstream_dataset"] == "LAION-2B"]
    fit = fit_law(rows, "parametric", x=("params", "samples_seen"), y="error")
    assert fit.result.num_starts == 4500
    assert np.median(np.abs(fit.residuals)) < 0.02
    assert 0 < fit.params["alpha"] < 2
