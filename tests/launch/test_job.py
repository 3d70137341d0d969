"""What a job leaves in the folders of runs that fail."""

import os

import pytest
import submitit

from arvis_scale.engine.distributed import leave_processes
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.launch.job import JobRun, run_job

CONFIG = """
schema_version: 1
name: one
output: OUTPUT
objective: xtra
samples_seen: 0
data: {shards: nowhere}
probe_data: {shards: nowhere}
"""


@pytest.fixture
def run_here(tmp_path, monkeypatch):
    """Return a function that does the runs of a job in this process."""

    def run(*runs):
        return submitit.DebugExecutor(tmp_path / "logs").submit(run_job, list(runs)).result()

    with monkeypatch.context() as patched:
        patched.setattr(os, "environ", os.environ.copy())
        yield run
        leave_processes()


def test_a_run_that_fails_before_its_attempt_keeps_those_counted_and_the_next_goes_on(tmp_path, run_here):
    folders = [RunFolder(tmp_path / name) for name in ("broken", "gone")]
    for folder in folders:
        folder.write_status(Status("pending", attempt=2, num_steps=10))
    folders[0].config.write_text("[")
    assert run_here(*(JobRun("train", str(folder.path)) for folder in folders)) == ["failed", "failed"]
    statuses = [folder.status() for folder in folders]
    assert [(status.state, status.attempt, status.num_steps) for status in statuses] == [("failed", 2, 10)] * 2
    assert "is not valid YAML" in statuses[0].reason
    assert "\n" not in statuses[0].reason


def test_raw_pixels_are_an_attempt_like_every_other_run(tmp_path, run_here):
    folder = RunFolder(tmp_path / "raw-pixels")
    folder.write_status(Status("pending", attempt=2))
    folder.config.write_text(CONFIG.replace("OUTPUT", str(folder.path)))
    assert run_here(JobRun("raw_pixels", str(folder.path))) == ["failed"]
    status = folder.status()
    assert (status.state, status.attempt) == ("failed", 3)
    assert "nowhere" in status.reason
