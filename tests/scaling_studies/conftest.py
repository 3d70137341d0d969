"""Study folders and tables of points with known laws behind them, written as the training side writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from scaling_studies import commands
from scaling_studies.points import points_table

PARAMS = {"nano": 30_000, "micro": 210_000, "mini": 1_200_000, "midi": 2_700_000}
UNIQUE_IMAGES = (100, 1_000, 10_000, 100_000)
# Method 2 needs this many times the images of method 1 for the same error, at every error.
SAMPLE_EFFICIENCY = 3.0

Row = dict[str, Any]
Result = dict[str, Any]


def true_error(objective: str, preset: str, unique_images: float) -> float:
    images = unique_images / (SAMPLE_EFFICIENCY if objective == "aim" else 1.0)
    return 0.05 + 0.12 * (images / 1_000) ** -0.3 + 0.1 * (PARAMS[preset] / 30_000) ** -0.25


@pytest.fixture(scope="session")
def row() -> Callable[..., Row]:
    """Maker of one measured row of a table of points; keyword arguments are its cells."""

    def make(name: str, value: float = 0.2, **cells: Any) -> Row:
        kind = cells.get("kind", "trained")
        images = 1_000 if kind == "trained" else 0
        return {
            "name": name,
            "kind": kind,
            "objective": "xtra",
            "preset": None if kind == "raw_pixels" else "nano",
            "params_encoder": 30_000,
            "params_total": 50_000,
            "unique_images": images,
            "samples_seen": 100 * images,
            "train_flops": 1e12,
            "metric": "linear_probe_error",
            "value": value,
            "value_low": max(0.0, value - 0.01),
            "value_high": min(1.0, value + 0.01),
            "num_test": 10_000,
            "seed": 0,
            "pretrain_data": "photos@0123456789ab",
            "probe_data": "photos@0123456789ab",
            "wall_seconds": 10.0,
            "device_seconds": 20.0,
            "world_size": 2,
            "strategy": "zero1",
            "status": "completed",
        } | cells

    return make


@pytest.fixture(scope="session")
def result() -> Callable[..., Result]:
    """Maker of the content of a result.json; keyword arguments replace its keys."""

    def make(name: str, correct: int = 800, num_test: int = 1_000, **keys: Any) -> Result:
        interval = binomtest(correct, num_test).proportion_ci(0.95, method="wilson")
        linear = {
            "correct": correct,
            "num_test": num_test,
            "accuracy": correct / num_test,
            "accuracy_low": float(interval.low),
            "accuracy_high": float(interval.high),
            "confidence": 0.95,
            "l2": 1e-4,
            "num_train": 1_000,
            "num_features": 64,
        }
        return {
            "schema_version": 1,
            "name": name,
            "objective": "xtra",
            "preset": "nano",
            "seed": 0,
            "probe_data": {"name": "photos", "hash": "0123456789abcdef"},
            "kind": "trained",
            "params_encoder": 30_000,
            "params_total": 50_000,
            "unique_images": 1_000,
            "samples_seen": 100_000,
            "train_flops": 1e12,
            "train_loss": 0.3,
            "val_loss": 0.4,
            "pretrain_data": {"name": "photos", "hash": "0123456789abcdef"},
            "probes": {"linear": linear},
            "wall_seconds": 10.0,
            "device_seconds": 20.0,
            "world_size": 2,
            "strategy": "zero1",
        } | keys

    return make


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """Writer of a run folder: a state (`None`: no status.json), a reason, and a result (a dict, or text as it is)."""

    def write(study: Path, name: str, state: str | None, result: Result | str | None = None, reason: str = "") -> Path:
        folder = study / "runs" / name
        folder.mkdir(parents=True)
        if state is not None:
            status = {"schema_version": 1, "state": state, "attempt": 1, "step": 1, "num_steps": 1, "reason": reason}
            (folder / "status.json").write_text(json.dumps(status))
        if result is not None:
            (folder / "result.json").write_text(result if isinstance(result, str) else json.dumps(result))
        return folder

    return write


@pytest.fixture(scope="session")
def make_study(result: Callable[..., Result], write_run: Callable[..., Path]) -> Callable[[Path], None]:
    """Writer of a whole study: two methods, three sizes, four data sizes, references, a failed and a planned run."""

    def make(study: Path) -> None:
        rng = np.random.default_rng(0)
        names = []
        for objective in ("xtra", "aim"):
            for preset in ("nano", "micro", "mini"):
                size = {"objective": objective, "preset": preset, "params_encoder": PARAMS[preset]}
                for images in UNIQUE_IMAGES:
                    names.append(f"{objective}-{preset}-u{images}")
                    correct = int(rng.binomial(20_000, 1 - true_error(objective, preset, images)))
                    content = result(names[-1], correct, 20_000, **size, unique_images=images)
                    write_run(study, names[-1], "completed", content)
                names.append(f"untrained-{objective}-{preset}")
                untrained = {"kind": "untrained", "unique_images": 0, "samples_seen": 0, "train_flops": 0.0}
                content = result(names[-1], 11_000, 20_000, **size, **untrained, train_loss=None)
                write_run(study, names[-1], "completed", content)
        write_run(study, "raw-pixels", "completed", result("raw-pixels", 16_000, 20_000, **_RAW_PIXELS))
        write_run(study, "digpt-micro-u1000", "failed", reason="loss is <b>NaN</b> & stays so")
        names += ["raw-pixels", "digpt-micro-u1000", "xtra-midi-u1000"]
        sweep = {"schema_version": 1, "study": "a & b", "commands": ["arvis-scale sweep submit <study>.yaml"]}
        (study / "sweep.json").write_text(json.dumps(sweep | {"runs": [{"name": name} for name in names]}))

    return make


_RAW_PIXELS = {
    "kind": "raw_pixels",
    "objective": "raw_pixels",
    "preset": None,
    "params_encoder": 0,
    "params_total": 0,
    "unique_images": 0,
    "samples_seen": 0,
    "train_flops": 0.0,
    "train_loss": None,
    "val_loss": None,
    "pretrain_data": None,
    "wall_seconds": 0.0,
    "device_seconds": 0.0,
    "world_size": 1,
    "strategy": None,
}


@pytest.fixture
def raw_pixels_result(result: Callable[..., Result]) -> Result:
    return result("raw-pixels", **_RAW_PIXELS)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory, make_study: Callable[[Path], None]) -> Path:
    """A study folder with its report, which draws the figures that `plot` writes too. Read-only."""
    folder = tmp_path_factory.mktemp("studies") / "study"
    make_study(folder)
    for step in (commands.collect, commands.fit, commands.report):
        step(folder)
    return folder


@pytest.fixture(scope="session")
def curve_rows(row: Callable[..., Row]) -> Callable[..., list[Row]]:
    """Maker of the rows of one objective and preset over unique images, on the true law without noise."""

    def make(objective: str = "xtra", preset: str = "nano", images: Any = UNIQUE_IMAGES, **cells: Any) -> list[Row]:
        size = {"objective": objective, "preset": preset, "params_encoder": PARAMS[preset], "samples_seen": 100_000}
        tag = "-".join(str(value) for value in cells.values())
        return [
            row(
                f"{objective}-{preset}-u{count}{tag}",
                true_error(objective, preset, count),
                **(size | {"unique_images": count} | cells),
            )
            for count in images
        ]

    return make


@pytest.fixture(scope="session")
def table() -> Callable[[list[Row]], pd.DataFrame]:
    return points_table
