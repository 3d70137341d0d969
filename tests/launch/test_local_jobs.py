"""A job of several processes does not wait for ever for one that has failed."""

import pytest

from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.launch import local_jobs
from arvis_scale.launch.study import load_study

STUDY = """
schema_version: 1
name: hanging
base: digits
set: {data.shards: shards/digits, samples_seen: 64, preset: nano}
points:
  - {objective: xtra, parallel.processes: 2, micro_batch_size: 32}
  - {objective: aim}
references: false
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """A job of two processes and one of one, whose runs have failed."""
    monkeypatch.setattr(local_jobs, "GRACE_SECONDS", 0.0)
    (tmp_path / "hanging.yaml").write_text(STUDY)
    runs = load_study(tmp_path / "hanging.yaml", tmp_path / "out").runs
    for run in runs:
        folder = RunFolder(run.config.output)
        folder.path.mkdir(parents=True)
        folder.write_status(Status("running", attempt=1))
    return [local_jobs.StartedJob(handle=None, runs=[run], gpus=[]) for run in runs]


def fail(job):
    RunFolder(job.runs[0].config.output).write_status(Status("failed", attempt=1, reason="the cause"))


def test_a_process_that_waits_for_a_failed_one_is_noticed(jobs):
    several, _ = jobs
    assert not several.hangs()
    fail(several)
    several.hangs()  # the grace begins
    assert several.hangs()


def test_a_single_process_goes_on_to_its_next_run_after_a_failure(jobs):
    _, single = jobs
    fail(single)
    single.hangs()
    assert not single.hangs()
