"""A local sweep that another terminal cancels and resumes."""

import json
import subprocess
import sys
import time

import pytest

from arvis_scale.engine.run_folder import RunFolder

pytestmark = pytest.mark.processes

STUDY = """
schema_version: 1
name: slow
base: digits
set: {objective: xtra, preset: nano, global_batch_size: 64, unique_images: 100, log.metrics_every: 1}
axes: {seed: [0, 1]}
references: false
launch: {max_parallel: 1}
"""
NUM_STEPS = 450


@pytest.fixture
def submission(tmp_path, digits, environment):
    """A submission whose first run is under way, while the second one waits for it: its folder, runs and process."""
    (tmp_path / "slow.yaml").write_text(STUDY)
    given = [f"samples_seen={64 * NUM_STEPS}", f"data.shards={digits}", "data.validation_images=20"]
    command = [sys.executable, "-m", "arvis_scale", "sweep", "submit", "slow.yaml", *given, "--output", "out"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    runs = [RunFolder(tmp_path / "out" / "runs" / f"xtra-nano-u100-n{64 * NUM_STEPS}-s{seed}") for seed in (0, 1)]
    deadline = time.monotonic() + 120
    while not runs[0].metrics.exists() or not runs[0].metrics.read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    yield tmp_path / "out", runs, process
    if process.poll() is None:
        process.terminate()
        process.communicate()


def test_a_local_sweep_is_watched_cancelled_and_resumed(submission, arvis_scale):
    folder, (first, second), process = submission
    status = json.loads(arvis_scale("sweep", "status", folder, "--json").stdout)
    assert not status["is_idle"]
    assert [run["state"] for run in status["runs"]] == ["running", "pending"]
    assert status["runs"][0]["loss"] > 0 and status["runs"][0]["seconds_left"] > 0

    cancelled = arvis_scale("sweep", "cancel", folder)
    assert cancelled.returncode == 0, cancelled.stderr
    assert "2 runs cancelled: 1 saved at their last step, 1 had done none, 0 lost steps" in cancelled.stdout
    process.communicate(timeout=60)
    saved = first.status()
    assert saved.state == "preempted" and 0 < saved.step < NUM_STEPS
    assert (first.checkpoints / f"step_{saved.step:08d}").is_dir()
    status = json.loads(arvis_scale("sweep", "status", folder, "--json").stdout)
    assert status["is_idle"]
    assert [run["state"] for run in status["runs"]] == ["cancelled", "cancelled"]

    resumed = arvis_scale("sweep", "resume", folder, first.path.name)
    assert resumed.returncode == 1, resumed.stderr  # one of the study's two runs is still to be done
    assert (first.status().state, first.status().attempt) == ("completed", 2)
    assert (second.status().state, second.status().attempt) == ("pending", 0)
    steps = [json.loads(line)["step"] for line in first.metrics.read_text().splitlines() if '"loss"' in line]
    assert steps == list(range(1, NUM_STEPS + 1))
