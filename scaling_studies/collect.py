"""From the run folders of a study to the table of points.

Reads `runs/<name>/result.json` and `runs/<name>/status.json`, from `sweep.json` the runs that were asked for and their
tune cells, and from `imported.csv` (or .tsv, .json, .parquet) rows of others. Nothing is dropped: a run that failed,
still runs, never started or left an unreadable result is a row that says so, and so is one that lost its cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from arvis_scale.atomic import read_json
from scaling_studies.curves import standard_error
from scaling_studies.points import IMPORTED, METRIC, points_table
from scaling_studies.tables import load_points

RESULT_SCHEMA = 1
STATUS_SCHEMA = 2
SWEEP_SCHEMA = 2
# The end of a binomial interval at 0 or 1 may miss the value by the last digit of a float.
_ROUNDING = 1e-6
# Probes beside the linear one; of each that was made a run has the columns error_KIND and sigma_KIND.
OTHER_PROBES = ("attentive", "knn")

# Copied from result.json under the same name; their types and ranges are the table's to check.
_COPIED = (
    "kind",
    "objective",
    "preset",
    "params_encoder",
    "params_total",
    "unique_images",
    "samples_seen",
    "train_flops",
    "train_loss",
    "val_loss",
    "seed",
    "wall_seconds",
    "device_seconds",
    "world_size",
    "strategy",
)


def collect(study_dir: Path) -> pd.DataFrame:
    """The table of points of a study folder, sorted by run name, imported rows last.

    Raises `ValueError` when there is no `runs/` folder with runs in it, or when `sweep.json` or `imported.*` is
    unreadable.
    """
    runs_dir = study_dir / "runs"
    if not runs_dir.is_dir():
        raise ValueError(f"{study_dir} is not a study folder: no runs/")
    found = {path.name for path in runs_dir.iterdir() if path.is_dir()}
    cells = _planned(study_dir / "sweep.json")
    names = sorted(found | set(cells))
    if not names:
        raise ValueError(f"{runs_dir} holds no runs: run `arvis-scale sweep submit` first")
    rows = [_row(runs_dir / name) | {"cell": cells.get(name)} for name in names]
    _choose(rows)
    return points_table([*rows, *_imported(study_dir)])


def of_methods(points: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """The rows of some methods, and raw pixels; runs without a result by their names, which begin with the method.

    Raises `ValueError` for a method that no run is of.
    """
    known = sorted(points["objective"].dropna().unique(), key=len, reverse=True)
    unknown = [name for name in methods if name not in known]
    if unknown:
        raise ValueError(f"no run is of method {unknown[0]!r}; there are {', '.join(sorted(known))}")

    def method_of(row: Any) -> str | None:
        if not pd.isna(row.objective):
            return str(row.objective)
        name = str(row.name_).removeprefix("untrained-")
        return next((method for method in known if name.startswith(f"{method}-")), None)

    found = [method_of(row) for row in points.rename(columns={"name": "name_"}).itertuples()]
    return points[[method in methods or method == "raw_pixels" for method in found]].reset_index(drop=True)


def _planned(sweep_file: Path) -> dict[str, str | None]:
    """The tune cell (or `None`) of every run that the sweep asked for; empty when no sweep made the study."""
    if not sweep_file.exists():
        return {}
    sweep = read_json(sweep_file, newest_schema=SWEEP_SCHEMA)
    runs, tune = sweep.get("runs"), sweep.get("tune")
    if not isinstance(runs, list) or not all(
        isinstance(run, dict) and isinstance(run.get("name"), str) for run in runs
    ):
        raise ValueError(f"{sweep_file}, key runs: expected a list of objects with a name; submit the sweep again")
    if tune is not None and (not isinstance(tune, dict) or tune.get("by") != "val_loss"):
        raise ValueError(f"{sweep_file}, key tune: expected null or the rule by val_loss; submit the sweep again")
    return {run["name"]: run.get("cell") for run in runs}


def _choose(rows: list[dict[str, object]]) -> None:
    """Mark in every tune cell the run of lowest val_loss as chosen; a run of no cell is chosen by itself.

    Of equal val_loss it is the first by name. A run without val_loss is never chosen in a cell.
    """
    best: dict[object, tuple[float, object]] = {}
    for row in rows:
        loss = row.get("val_loss")
        if row["cell"] is not None and isinstance(loss, (int, float)):
            best[row["cell"]] = min(best.get(row["cell"], (math.inf, None)), (loss, row["name"]), key=lambda it: it[0])
    for row in rows:
        if row.get("value") is not None or row.get("val_loss") is not None:
            row["chosen"] = row["cell"] is None or best.get(row["cell"], (0, None))[1] == row["name"]


def _imported(study_dir: Path) -> list[dict[str, object]]:
    """Rows of others from imported.csv, .tsv, .json or .parquet; none without such a file.

    Needed are `objective`, `source` and one of `error`, `accuracy`, `value` (an error); other columns of the table of
    points are taken where they are.
    """
    files = sorted(study_dir.glob("imported.*"))
    if len(files) > 1:
        raise ValueError(
            f"{study_dir} has {' and '.join(file.name for file in files)}: keep one table of imported rows"
        )
    if not files:
        return []
    table = load_points(files[0])
    missing = [name for name in ("objective", "source") if name not in table]
    if missing or not {"error", "accuracy", "value"} & set(table):
        raise ValueError(
            f"{files[0]} needs the columns objective, source and error; there are {', '.join(map(str, table))}"
        )
    if "value" not in table:
        table["value"] = table["error"] if "error" in table else 1 - table["accuracy"]
    if "params_encoder" not in table and "params" in table:
        table["params_encoder"] = table["params"]
    if "name" not in table:
        table["name"] = [f"imported-{number}" for number in table.index]
    fixed = {"kind": IMPORTED, "metric": METRIC, "chosen": True, "status": "completed", "cell": None}
    return [row | fixed for row in table.astype(object).where(table.notna(), None).to_dict("records")]


def _row(run_dir: Path) -> dict[str, object]:
    """The row of one run; an unreadable file makes it an `invalid` row whose reason is the reader's message."""
    try:
        status, reason = _status(run_dir)
        row: dict[str, object] = {"name": run_dir.name, "status": status, "reason": reason}
        if status != "completed":
            return row
        measured = _measurement(run_dir / "result.json")
        points_table([row | measured])  # a wrong cell must cost this run its value, not the study its table
    except ValueError as error:
        return {"name": run_dir.name, "status": "invalid", "reason": str(error)}
    return row | measured


def _status(run_dir: Path) -> tuple[str, str | None]:
    """State and reason of a run. A result is written last and whole, so that without status.json it means completed."""
    status_file, has_result = run_dir / "status.json", (run_dir / "result.json").exists()
    if not status_file.exists():
        if has_result:
            return "completed", None
        return "pending", "no status.json" if run_dir.is_dir() else "never started"
    status = read_json(status_file, newest_schema=STATUS_SCHEMA)
    state, reason = status.get("state"), status.get("reason") or None
    if state not in ("pending", "running", "preempted", "completed", "failed"):
        raise ValueError(f"{status_file}, key state: {state!r} is no state of a run")
    if state == "completed" and not has_result:
        raise ValueError(f"{run_dir / 'result.json'} is missing although the run completed; submit the sweep again")
    return state, None if reason is None else " ".join(str(reason).split())


def _measurement(result_file: Path) -> dict[str, object]:
    """What result.json measured, under the table's names. Raises `ValueError` naming the file and the key."""
    result = read_json(result_file, newest_schema=RESULT_SCHEMA)
    missing = [key for key in (*_COPIED, "pretrain_data", "probe_data", "probes") if key not in result]
    if missing:
        raise ValueError(f"{result_file} lacks the keys {', '.join(missing)}; run the probe again")
    return {
        **{key: result[key] for key in _COPIED},
        "objective": result.get("method") or result["objective"],
        **_errors(result_file, result["probes"]),
        "pretrain_data": _dataset(result["pretrain_data"]),
        "probe_data": _dataset(result["probe_data"]),
    }


def _errors(result_file: Path, probes: object) -> dict[str, object]:
    """The linear probe's error with its 95% interval, and the errors of the other probes that were made.

    A run without probes, as tuning wants them, has a row without a value.
    """
    if probes == {}:
        return {"reason": "not probed"}
    if not isinstance(probes, dict) or "linear" not in probes:
        raise ValueError(f"{result_file}, key probes.linear: expected an object; run `arvis-scale probe` on this run")
    value, low, high, num_test = _probe(result_file, "linear", probes["linear"])
    row: dict[str, object] = {
        "metric": METRIC,
        "value": value,
        "value_low": low,
        "value_high": high,
        "num_test": num_test,
        "sigma": _sigma(value, num_test),
    }
    for kind in OTHER_PROBES:
        if kind in probes:
            error, _, _, num_images = _probe(result_file, kind, probes[kind])
            if num_images != num_test:
                raise ValueError(
                    f"{result_file}, key probes.{kind}.num_test: {num_images} where probes.linear has {num_test}; run "
                    "both probes again, on the same images"
                )
            row |= {f"error_{kind}": error, f"sigma_{kind}": _sigma(error, num_images)}
    return row


def _sigma(error: float, num_test: int) -> float:
    return float(standard_error(np.asarray(error), np.asarray(num_test)))


def _probe(result_file: Path, kind: str, probe: object) -> tuple[float, float, float, int]:
    """Error of one probe, the ends of its 95% interval and the number of test images, from its accuracy."""
    where = f"{result_file}, key probes.{kind}"
    if not isinstance(probe, dict):
        raise ValueError(f"{where}: expected an object; run `arvis-scale probe` on this run")
    keys = ("correct", "num_test", "accuracy", "accuracy_low", "accuracy_high")
    correct, num_test, accuracy, low, high = (_number(where, probe, key) for key in keys)
    if not (0 <= correct <= num_test and num_test >= 1 and correct.is_integer() and num_test.is_integer()):
        raise ValueError(f"{where}.correct: {probe['correct']} of {probe['num_test']} is no count; run the probe again")
    if abs(accuracy - correct / num_test) > 1e-6:
        raise ValueError(f"{where}.accuracy: {accuracy} is not correct / num_test")
    if not -_ROUNDING <= low <= accuracy + _ROUNDING or not accuracy - _ROUNDING <= high <= 1 + _ROUNDING:
        raise ValueError(f"{where}.accuracy: {accuracy} is outside {low} to {high}")
    if probe.get("confidence") != 0.95:
        raise ValueError(f"{where}.confidence: {probe.get('confidence')!r} is not 0.95")
    # From the counts, so that equal counts give equal bytes whatever the accuracy was rounded to.
    error = 1 - correct / num_test
    return error, min(error, max(0.0, 1 - high)), max(error, min(1.0, 1 - low)), int(num_test)


def _number(where: str, probe: dict[str, Any], key: str) -> float:
    value = probe.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{where}.{key}: {value!r} is not a number; run the probe again")
    return float(value)


def _dataset(value: object) -> str | None:
    """`name@hash` of a data set, the hash cut to 12 digits; `None` when there is none."""
    if not isinstance(value, dict) or value.get("name") is None:
        return None
    digest = value.get("hash")
    return f"{value['name']}@{digest[:12]}" if isinstance(digest, str) and digest else str(value["name"])
