"""What jobs on this machine leave of runs that somebody has cancelled."""

import time
from pathlib import Path

import pytest

from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.launch.cancellation import mark_cancelled
from arvis_scale.launch.executors.local import LocalExecutor
from arvis_scale.launch.executors.local_jobs import Place, close_job, start_job
from arvis_scale.launch.executors.profiles import ClusterProfile
from arvis_scale.launch.executors.task import train_task
from arvis_scale.launch.jobs.worker import do_runs
from arvis_scale.launch.studies.study import load_study

STUDY = """
schema_version: 1
name: split
base: digits
set: {data.shards: shards/digits, samples_seen: 64, preset: nano}
axes:
  objective: [xtra, aim]
references: false
launch: {report: false}
"""
SOURCE = Path(__file__).parents[2]


class JobNotes:
    """What an executor told of its jobs."""

    def __init__(self):
        self.jobs = {}

    def runs(self, jobs):
        self.jobs.update(jobs)


@pytest.fixture
def study(tmp_path):
    """A study whose runs wait to be started."""
    (tmp_path / "split.yaml").write_text(STUDY)
    study = load_study(tmp_path / "split.yaml", tmp_path / "out")
    for folder in folders(study):
        folder.write_status(Status("pending"))
    return study


def folders(study):
    return [RunFolder(run.config.output) for run in study.runs]


def states(study):
    return [folder.status().state for folder in folders(study)]


@pytest.fixture
def ended_job(study, tmp_path):
    """Return a function that starts a job of the study's runs, all of them cancelled, and waits for its end."""

    def start():
        for folder in folders(study):
            mark_cancelled(folder.path)
        place = Place(tmp_path / "logs", SOURCE, {}, num_threads=1)
        place.logs.mkdir()
        job = start_job("split", train_task(study, study.runs), study.runs, place, [], timeout_hours=1)
        deadline = time.monotonic() + 60
        while not job.handle.done():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return job

    return start


def test_waiting_runs_that_are_cancelled_have_not_failed_when_their_job_ends(study, ended_job):
    close_job(ended_job())
    assert states(study) == ["pending", "pending"]  # with their marks: cancelled


def test_a_running_run_that_is_cancelled_and_killed_has_not_failed(study, ended_job):
    job = ended_job()
    folders(study)[0].write_status(Status("running", attempt=1))
    close_job(job)
    status = folders(study)[0].status()
    assert status.state == "preempted" and "cancelled before it had saved" in status.reason


def test_no_job_is_started_for_cancelled_runs(study):
    for folder in folders(study):
        mark_cancelled(folder.path)
    notes = JobNotes()
    LocalExecutor(ClusterProfile(), study.output).run(study, SOURCE, [[run] for run in study.runs], notes)
    assert notes.jobs == {} and states(study) == ["pending", "pending"]


def test_a_process_leaves_out_the_run_that_is_cancelled_while_it_does_another(study, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    first, second = folders(study)
    for folder in (first, second):
        folder.config.write_text("[")
    mark_cancelled(second.path)
    do_runs([("train", str(first.path)), ("train", str(second.path))])
    assert states(study) == ["failed", "pending"]
