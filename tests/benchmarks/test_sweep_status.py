"""The benchmark of `sweep status` runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "sweep_status.py"


def test_the_benchmark_writes_what_it_measured(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARK), "--quick", "--output", str(output)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    rows = json.loads(output.read_text())["rows"]
    assert [row["runs"] for row in rows] == [10, 100]
    for row in rows:
        assert row["seconds_first"] > 0 and row["cpu_seconds_next"] > 0
        assert 1e6 < row["peak_bytes_json"] < 300e6
        assert row["cache_bytes"] > 0
