"""The benchmark of checkpoints runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "checkpoint_stall.py"


@pytest.mark.processes
def test_the_benchmark_writes_what_it_measured_and_removes_its_checkpoints(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARK), "--quick", "--output", str(output), "--folder", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    [row] = json.loads(output.read_text())["rows"]
    low, median, high = row["synchronous_save_seconds"]
    assert 0 < low <= median <= high
    assert row["num_bytes"] > 1_000_000
    assert list(tmp_path.iterdir()) == [output]
