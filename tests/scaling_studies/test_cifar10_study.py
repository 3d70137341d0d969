"""The published CIFAR-10 study: its files agree with each other, and its points give its constants again."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from arvis_scale.launch.studies.study import load_study
from scaling_studies import fit_law
from scaling_studies.curve_documents import fit_options
from scaling_studies.curves import curves_over_params, curves_over_samples_seen, curves_over_unique_images
from scaling_studies.points import read_points

STUDY = Path(__file__).parents[2] / "docs" / "studies" / "cifar10"
# One for each question: README.md.
PARTS = sorted(path.parent.name for path in STUDY.glob("*/fits.json"))


def read_yaml(name: str) -> dict[str, Any]:
    return yaml.safe_load((STUDY / name).read_text())


def test_every_method_means_the_same_in_tuning_and_study() -> None:
    tuned, studied = (read_yaml(name)["rules"]["method"] for name in ("tune.yaml", "study.yaml"))
    assert tuned.items() <= studied.items()


def test_the_rates_of_the_study_are_those_that_tuning_chose() -> None:
    tuning = read_points(STUDY / "tuning.csv")
    assert tuning["val_loss"].notna().all()
    best = tuning.loc[tuning.groupby(["objective", "preset"])["val_loss"].idxmin()]
    assert best["chosen"].all() and len(best) == 33
    chosen = {f"{row.objective}, {row.preset}": float(row.name_.rpartition("_")[2]) for row in rows(best)}
    rules = read_yaml("study.yaml")["rules"]["method, preset"]
    rates = {place: float(keys["optimizer.learning_rate"]) for place, keys in rules.items()}
    for place, rate in rates.items():
        assert rate == chosen[place.replace("-longtail", "")], place
    assert set(chosen) <= set(rates)


def rows(table: Any) -> Any:
    return table.rename(columns={"name": "name_"}).itertuples()


def test_the_tables_of_the_page_are_those_of_the_points() -> None:
    script = runpy.run_path(str(STUDY / "tables.py"))
    page = (STUDY / "README.md").read_text()
    tables = list(script["tables"](read_points(STUDY / "points.csv")))
    assert len(tables) > 8
    for table in tables:
        assert table in page, f"README.md has another table than tables.py prints:\n{table}"


def test_every_run_that_the_study_asks_for_is_in_the_table() -> None:
    shards = ["data.shards=SHARDS", "probe_data.shards=SHARDS"]
    asked = {run.config.name for run in load_study(STUDY / "study.yaml", STUDY, shards).runs}
    assert asked == set(read_points(STUDY / "points.csv").dropna(subset=["value"])["name"])


@pytest.mark.parametrize("part", PARTS)
def test_the_committed_points_give_the_committed_constants(part: str) -> None:
    points, fits = read_points(STUDY / "points.csv"), json.loads((STUDY / part / "fits.json").read_text())
    curves = [
        curve
        for curves_of in (curves_over_unique_images, curves_over_samples_seen, curves_over_params)
        for curve in curves_of(points, num_needed=3)
    ]
    fitted = {(it["objective"], it["preset"], it["x"]): it for it in fits["curves"] if it["status"] == "fitted"}
    compared = 0
    for curve in curves:
        committed = fitted.get((curve.objective, curve.preset, curve.x))
        if committed is None:
            continue
        fit = fit_law(curve.table(), committed["law"]["name"], **fit_options(curve))
        for name, value in fit.params.items():
            # Other processors round differently, and where a minimum is flat its place moves more than that.
            assert value == pytest.approx(committed["params"][name]["value"], rel=1e-3, abs=1e-6), curve.label
        compared += 1
    assert compared == len(fitted) > 10
