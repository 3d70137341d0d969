"""The benchmark of large studies runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "sweep_scale.py"


@pytest.mark.processes
def test_the_benchmark_writes_what_it_measured(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARK), "--sizes", "20", "--output", str(output)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    [row] = json.loads(output.read_text())["rows"]
    assert row["runs"] == 20
    assert all(row[phase] > 0 for phase in ("expand", "check", "plan", "folders"))
    assert row["submit"] is None
