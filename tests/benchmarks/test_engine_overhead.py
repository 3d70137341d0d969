"""The engine's benchmark runs, and what it compares computes the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "engine_overhead.py"


def test_the_benchmark_writes_what_it_measured(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARK), "--quick", "--strategies", "zero0", "zero1", "--output", str(output)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    # A loss of the engine that is not the loop's ends it with an error.
    assert finished.returncode == 0, finished.stderr[-2000:]
    rows = json.loads(output.read_text())["rows"]
    assert [row["strategy"] for row in rows] == ["zero0", "zero1"]
    for row in rows:
        assert row["micro_batch_size"] == row["accumulation"] == 2
        assert row["engine_seconds"] > 0 and row["loop_seconds"] > 0 and row["time_ratio"] > 0
