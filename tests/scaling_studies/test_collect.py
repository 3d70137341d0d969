"""From run folders to points: every run is a row, whatever became of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from scaling_studies import commands
from scaling_studies.cli import app
from scaling_studies.collect import collect
from scaling_studies.points import read_points
from scaling_studies.provenance import provenance

Result = Callable[..., dict[str, Any]]
WriteRun = Callable[..., Path]


def row_of(study: Path, name: str) -> dict[str, Any]:
    points = collect(study)
    (row,) = points[points["name"] == name].to_dict("records")
    return row


def test_a_completed_run_carries_its_measurement(tmp_path: Path, result: Result, write_run: WriteRun) -> None:
    write_run(tmp_path, "a", "completed", result("a", correct=750, num_test=1_000, preset="7B"))
    row = row_of(tmp_path, "a")
    assert row["status"] == "completed"
    assert row["value"] == pytest.approx(0.25)
    # Wilson's interval of 750 of 1000.
    assert (row["value_low"], row["value_high"]) == (pytest.approx(0.2242, abs=1e-4), pytest.approx(0.2778, abs=1e-4))
    assert (row["preset"], row["unique_images"], row["seed"]) == ("7B", 1_000, 0)
    assert row["pretrain_data"] == "photos@0123456789ab"


@pytest.mark.parametrize("correct", [0, 300])
def test_none_and_all_right_are_measurements(tmp_path: Path, result: Result, write_run: WriteRun, correct: int) -> None:
    write_run(tmp_path, "a", "completed", result("a", correct=correct, num_test=300))
    row = row_of(tmp_path, "a")
    assert row["status"] == "completed"
    assert row["value"] == 1 - correct / 300
    assert row["value_low"] < row["value_high"]


def test_raw_pixels_need_no_preset_and_no_pretraining_set(
    tmp_path: Path, raw_pixels_result: dict[str, Any], write_run: WriteRun
) -> None:
    write_run(tmp_path, "raw-pixels", "completed", raw_pixels_result)
    row = row_of(tmp_path, "raw-pixels")
    assert (row["status"], row["kind"], row["pretrain_data"], row["preset"]) == ("completed", "raw_pixels", None, None)


def test_a_result_without_a_status_counts_as_completed(tmp_path: Path, result: Result, write_run: WriteRun) -> None:
    write_run(tmp_path, "a", None, result("a"))
    assert row_of(tmp_path, "a")["status"] == "completed"


@pytest.mark.parametrize("state", ["pending", "running", "preempted", "failed"])
def test_an_unfinished_run_is_a_row_with_its_state_and_reason(tmp_path: Path, write_run: WriteRun, state: str) -> None:
    write_run(tmp_path, "a", state, reason="out of\n  memory")
    row = row_of(tmp_path, "a")
    assert (row["status"], row["reason"]) == (state, "out of memory")
    assert row["value"] != row["value"]


def test_a_planned_run_without_a_folder_is_a_row(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "a", "failed")
    (tmp_path / "sweep.json").write_text(json.dumps({"schema_version": 1, "runs": [{"name": "b"}]}))
    assert row_of(tmp_path, "b")["reason"] == "never started"
    assert list(collect(tmp_path)["name"]) == ["a", "b"]


def accuracy(correct: int, num_test: int = 1_000, **keys: Any) -> dict[str, Any]:
    """An entry of `probes` in result.json."""
    share = correct / num_test
    ends = {"accuracy_low": share, "accuracy_high": share}
    return {"correct": correct, "num_test": num_test, "accuracy": share, **ends, "confidence": 0.95} | keys


def test_every_probe_that_was_made_has_its_error_and_standard_error(
    tmp_path: Path, result: Result, write_run: WriteRun
) -> None:
    content = result("a", correct=800, num_test=1_000)
    content["probes"] |= {"attentive": accuracy(900), "attentive_by_layer": []}
    write_run(tmp_path, "a", "completed", content)
    row = row_of(tmp_path, "a")
    assert (row["value"], row["error_attentive"]) == (pytest.approx(0.2), pytest.approx(0.1))
    # sqrt(p (1 - p) / 1004) at p = 202 / 1004 and 102 / 1004: two successes and two failures added.
    assert row["sigma"] == pytest.approx(0.012652, abs=1e-6)
    assert row["sigma_attentive"] == pytest.approx(0.009535, abs=1e-6)
    assert math.isnan(row["error_knn"])
    assert math.isnan(row["sigma_knn"])


def test_curves_are_fitted_to_either_probe_of_a_study_with_references_and_failed_runs(
    tmp_path: Path, result: Result, raw_pixels_result: dict[str, Any], write_run: WriteRun
) -> None:
    for images in (100, 300, 1_000, 3_000, 10_000):
        content = result(f"u{images}", round(10_000 * (1 - 0.9 * images**-0.2)), 10_000, unique_images=images)
        content["probes"]["attentive"] = accuracy(round(10_000 * (1 - 0.9 * images**-0.3)), 10_000)
        write_run(tmp_path, content["name"], "completed", content)
    write_run(tmp_path, "raw-pixels", "completed", raw_pixels_result)
    write_run(tmp_path, "lost", "failed", reason="out of memory")
    table = str(commands.collect(tmp_path))
    exponents = {}
    for error, sigma in (("value", "sigma"), ("error_attentive", "sigma_attentive")):
        options = ["--x", "unique_images", "--y", error, "--sigma", sigma, "--where", "kind=trained", "--law", "m1"]
        shown = CliRunner().invoke(app, ["fit", table, *options, "--json"], catch_exceptions=False)
        exponents[error] = json.loads(shown.output)["params"]["c"]["value"]
    assert exponents == {"value": pytest.approx(-0.2, abs=0.01), "error_attentive": pytest.approx(-0.3, abs=0.01)}


def test_runs_from_streams_make_a_study_over_samples_seen_with_figures_and_a_report(
    tmp_path: Path, result: Result, write_run: WriteRun
) -> None:
    for seen in (1_000, 3_000, 10_000, 30_000):
        content = result(f"s{seen}", round(10_000 * (1 - seen**-0.2)), 10_000, samples_seen=seen, unique_images=None)
        write_run(tmp_path, content["name"], "completed", content)
    points = read_points(commands.collect(tmp_path))
    assert set(points["status"]) == {"completed"}
    assert points["unique_images"].isna().all()
    fits = json.loads(commands.fit(tmp_path).read_text())
    curves = {curve["x"]: curve["status"] for curve in fits["curves"]}
    assert curves == {"samples_seen": "fitted", "params_encoder": "refused"}
    assert "an unknown number of unique images" in commands.report(tmp_path).read_text()
    assert "an unknown number of unique images" in (tmp_path / "figures" / "error_vs_samples_seen.svg").read_text()
    assert not (tmp_path / "figures" / "error_vs_unique_images.svg").exists()


def without(content: dict[str, Any], *keys: str) -> str:
    return json.dumps({key: value for key, value in content.items() if key not in keys})


def probe(content: dict[str, Any], **keys: Any) -> str:
    return json.dumps(content | {"probes": {"linear": content["probes"]["linear"] | keys}})


def other_probe(content: dict[str, Any], attentive: object) -> str:
    return json.dumps(content | {"probes": content["probes"] | {"attentive": attentive}})


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda content: json.dumps(content)[:-40], "is not valid JSON"),
        (lambda content: "[]", "not a JSON object"),
        (lambda content: json.dumps(content | {"schema_version": 2}), "schema_version 2"),
        (lambda content: without(content, "seed", "preset"), "lacks the keys preset, seed"),
        (lambda content: json.dumps(content | {"probes": {"knn": {}}}), "key probes.linear"),
        (lambda content: probe(content, correct=2_000), "2000 of 1000 is no count"),
        (lambda content: probe(content, correct=799.5), "799.5 of 1000 is no count"),
        (lambda content: probe(content, accuracy="high"), "'high' is not a number"),
        (lambda content: probe(content, accuracy=float("nan")), "nan is not a number"),
        (lambda content: probe(content, accuracy=0.5), "is not correct / num_test"),
        (lambda content: probe(content, accuracy_low=0.9), "0.8 is outside 0.9 to"),
        (lambda content: probe(content, confidence=0.9), "0.9 is not 0.95"),
        (lambda content: other_probe(content, accuracy(1_001)), "probes.attentive.correct: 1001 of 1000 is no count"),
        (lambda content: other_probe(content, accuracy(90, 100)), "probes.attentive.num_test: 100 where probes.linear"),
        (lambda content: other_probe(content, None), "key probes.attentive: expected an object"),
        (lambda content: json.dumps(content | {"unique_images": -1}), "column unique_images"),
        (lambda content: json.dumps(content | {"seed": None}), "column seed: is blank"),
    ],
)
def test_an_unusable_result_is_an_invalid_row_that_says_why_in_one_line(
    tmp_path: Path, result: Result, write_run: WriteRun, broken: Callable[[dict[str, Any]], str], says: str
) -> None:
    write_run(tmp_path, "cut", "completed", broken(result("cut")))
    write_run(tmp_path, "good", "completed", result("good"))
    row = row_of(tmp_path, "cut")
    assert row["status"] == "invalid"
    assert says in row["reason"]
    assert "cut" in row["reason"]
    assert "\n" not in row["reason"]
    assert row["value"] != row["value"]
    assert row_of(tmp_path, "good")["status"] == "completed"


def test_a_completed_run_whose_result_is_gone_is_invalid(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "a", "completed")
    row = row_of(tmp_path, "a")
    assert row["status"] == "invalid"
    assert "result.json is missing" in row["reason"]


def test_a_status_of_another_word_is_invalid(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "a", "dreaming")
    assert "'dreaming' is no state of a run" in row_of(tmp_path, "a")["reason"]


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a study folder: no runs/"):
        collect(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match="holds no runs: run `arvis-scale sweep submit` first"):
        collect(tmp_path)


def write_sweep(study: Path, tune: dict[str, Any] | None, cells: dict[str, str | None]) -> None:
    runs = [{"name": name, "kind": "train", "job": "1", "cell": cell} for name, cell in cells.items()]
    (study / "sweep.json").write_text(json.dumps({"schema_version": 2, "study": "s", "runs": runs, "tune": tune}))


def test_of_a_tune_cell_the_run_of_lowest_val_loss_is_chosen(
    tmp_path: Path, result: Result, write_run: WriteRun
) -> None:
    losses = {"a-1": 0.5, "a-2": 0.4, "a-3": None, "b-1": 0.9, "alone": 0.9}
    for name, loss in losses.items():
        write_run(tmp_path, name, "completed", result(name, val_loss=loss))
    write_run(tmp_path, "b-2", "running")
    cells = {name: name[0] if "-" in name else None for name in [*losses, "b-2"]}
    write_sweep(tmp_path, {"keys": ["optimizer.learning_rate"], "by": "val_loss"}, cells)
    points = collect(tmp_path).set_index("name")
    assert points["chosen"].dropna().to_dict() == {
        "a-1": False,
        "a-2": True,
        "a-3": False,
        "b-1": True,
        "alone": True,
    }
    assert points["cell"].dropna().to_dict() == {"a-1": "a", "a-2": "a", "a-3": "a", "b-1": "b", "b-2": "b"}


def test_runs_without_probes_are_rows_without_a_value_that_tuning_can_choose_from(
    tmp_path: Path, result: Result, write_run: WriteRun
) -> None:
    for name, loss in (("a-1", 0.5), ("a-2", 0.4)):
        write_run(tmp_path, name, "completed", result(name, val_loss=loss) | {"probes": {}, "probe_data": None})
    write_sweep(tmp_path, {"keys": ["optimizer.learning_rate"], "by": "val_loss"}, {"a-1": "a", "a-2": "a"})
    points = collect(tmp_path).set_index("name")
    assert points["status"].tolist() == ["completed"] * 2 and points["reason"].tolist() == ["not probed"] * 2
    assert points["value"].isna().all() and points["val_loss"].tolist() == [0.5, 0.4]
    assert points["chosen"].tolist() == [False, True]


def test_a_part_of_a_study_has_some_methods_and_raw_pixels(tmp_path: Path, result: Result, write_run: WriteRun) -> None:
    for method in ("XTRA-k2", "XTRA-k2-longtail", "AIM"):
        write_run(tmp_path, f"{method}-nano", "completed", result(f"{method}-nano") | {"method": method})
        write_run(tmp_path, f"{method}-micro", "failed")
    pixels = {"kind": "raw_pixels", "objective": "raw_pixels", "preset": None, "params_encoder": 0, "params_total": 0}
    write_run(tmp_path, "raw-pixels", "completed", result("raw-pixels") | pixels)
    part = tmp_path / "parts" / "k2"
    points = read_points(commands.collect(tmp_path, ["XTRA-k2"], part))
    assert points["name"].tolist() == ["XTRA-k2-micro", "XTRA-k2-nano", "raw-pixels"]
    assert (part / "points.csv").is_file() and not (tmp_path / "points.csv").exists()
    assert (
        f"arvis-scale study collect {tmp_path} --method XTRA-k2 --output {part}"
        in provenance(part, points, {}).commands
    )
    with pytest.raises(ValueError, match="no run is of method 'xtra'; there are AIM, XTRA-k2, XTRA-k2-longtail"):
        commands.collect(tmp_path, ["xtra"], part)
    with pytest.raises(ValueError, match="needs a folder of its own: give --output"):
        commands.collect(tmp_path, ["AIM"])


def test_another_rule_than_val_loss_is_refused(tmp_path: Path, result: Result, write_run: WriteRun) -> None:
    write_run(tmp_path, "a", "completed", result("a"))
    write_sweep(tmp_path, {"keys": ["seed"], "by": "train_loss"}, {"a": "a"})
    with pytest.raises(ValueError, match="sweep.json, key tune: expected null or the rule by val_loss"):
        collect(tmp_path)


def test_rows_of_others_come_with_the_study(tmp_path: Path, result: Result, write_run: WriteRun) -> None:
    write_run(tmp_path, "a", "completed", result("a"))
    text = "objective,params,unique_images,samples_seen,accuracy,source\naim,6e8,2e9,2e9,0.785,arXiv 2401.08541\n"
    (tmp_path / "imported.csv").write_text(text)
    row = row_of(tmp_path, "imported-1")
    assert (row["kind"], row["objective"], row["source"]) == ("imported", "aim", "arXiv 2401.08541")
    assert (row["params_encoder"], row["samples_seen"]) == (600_000_000, 2_000_000_000)
    assert row["value"] == pytest.approx(0.215)
    (tmp_path / "imported.json").write_text("[]")
    with pytest.raises(ValueError, match="has imported.csv and imported.json: keep one"):
        collect(tmp_path)
    (tmp_path / "imported.json").unlink()
    (tmp_path / "imported.csv").write_text("objective,error\naim,0.2\n")
    with pytest.raises(ValueError, match="imported.csv needs the columns objective, source and error"):
        collect(tmp_path)
