"""What `plan` says a training process will hold, against what it holds.

The rows are of benchmarks/plan_memory.py, whose whole table of three sizes and six strategies is in
benchmarks/results/. These are of a size on which none of the plan's rules was worked out.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "plan_memory.py"
# XTRA igpt-S/16 by strategy: ZeRO-1 on one process, ZeRO-2, ZeRO-3 (bf16) and the pipeline (bf16) on two.
ROWS = {11: "zero1", 12: "zero2", 13: "zero3", 14: "pipeline"}
# Errors of 1.1% were seen here; the rest is for other machines' allocators.
TOLERANCE = 0.10


@pytest.fixture(scope="module")
def rows(tmp_path_factory, environment):
    output = tmp_path_factory.mktemp("plan") / "rows.json"
    command = [sys.executable, str(BENCHMARK), "--output", str(output), "--cases", *map(str, ROWS)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return {row["strategy"]: row for row in json.loads(output.read_text())["rows"]}


@pytest.mark.parametrize("strategy", ROWS.values())
def test_peak_memory_is_predicted(rows, strategy):
    row = rows[strategy]
    assert row["predicted_bytes"] == pytest.approx(row["measured_bytes"], rel=TOLERANCE)


def test_the_strategies_differ_by_more_than_the_tolerance(rows):
    """Else one number would predict them all."""
    measured = [row["measured_bytes"] for row in rows.values()]
    assert max(measured) > 1.3 * min(measured)
