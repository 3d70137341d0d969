"""Kills at the named points of a save and at random moments lose no checkpoint and change no weight.

Eight here; `make chaos` kills 100 times.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    ("num_processes", "strategy", "points"),
    [
        (1, "zero1", ["mid-file", "before the rename", "between rename and latest", "while pruning", "at random"]),
        # One process is done, or trains on, when the other dies.
        (2, "zero3", ["mid-file", "one process has written", "while optimizer state goes"]),
    ],
)
def test_killed_again_and_again_a_run_ends_with_the_same_weights(
    tmp_path, environment, num_processes, strategy, points
):
    script = Path(__file__).with_name("kill_runs.py")
    command = [sys.executable, str(script), str(tmp_path), "--kills", str(len(points))]
    command += ["--processes", str(num_processes), "--strategy", strategy, "--points", *points]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr[-3000:]
    assert f"{len(points)} kills, " in finished.stdout
