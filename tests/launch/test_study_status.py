"""What runs are said to do: by their folders, by Slurm, and where the two disagree."""

import json
import os
import time

import pytest

from arvis_scale.atomic import write_json
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.launch.cancellation import mark_cancelled
from arvis_scale.launch.locks import held
from arvis_scale.launch.slurm_jobs import JobState
from arvis_scale.launch.status.run_reports import CACHE_NAME, RunReport, run_reports
from arvis_scale.launch.status.study_status import study_status
from arvis_scale.launch.status.verdict import JobNews, judge
from arvis_scale.launch.sweep_file import Budget, Sweep, SweepRun, write_sweep

NOW = time.time()
RUNS, WAITS, ENDED, GONE = (
    JobState("RUNNING", "node1"),
    JobState("PENDING", reason="Priority"),
    JobState("FAILED"),
    None,
)
CANCELLED, LOST_NODE = JobState("CANCELLED"), JobState("NODE_FAIL", "node2")


@pytest.mark.parametrize(
    ("folder", "age", "job", "state", "said"),
    [
        ("running", 5, RUNS, "running", ""),
        ("running", 300, RUNS, "stale", "Slurm says RUNNING of job 7 on node1, but its last heartbeat is 300 s old"),
        ("running", 5, LOST_NODE, "lost", "its last heartbeat is 5 s old; Slurm says NODE_FAIL of job 7 on node2"),
        ("running", 5, GONE, "lost", "Slurm knows no job 7 any more"),
        (
            "running",
            40,
            WAITS,
            "pending",
            "the folder says running, its last heartbeat is 40 s old; Slurm says PENDING",
        ),
        ("pending", 0, WAITS, "pending", ""),
        ("pending", 0, RUNS, "pending", ""),
        ("pending", 0, ENDED, "lost", "the folder says pending; Slurm says FAILED of job 7"),
        ("pending", 0, JobState("OUT_OF_MEMORY"), "lost", "Slurm says OUT_OF_MEMORY"),
        ("pending", 0, GONE, "lost", "Slurm knows no job 7 any more"),
        ("pending", 0, CANCELLED, "cancelled", "the folder says pending; Slurm says CANCELLED"),
        ("preempted", 0, WAITS, "preempted", ""),
        ("preempted", 0, ENDED, "preempted", "no job is to go on with it; Slurm says FAILED"),
        ("failed", 0, ENDED, "failed", ""),
        ("failed", 0, WAITS, "failed", "Slurm says PENDING (Priority) of job 7, which may start it again"),
        ("failed", 0, RUNS, "failed", "Slurm says RUNNING of job 7 on node1, which may start it again"),
        ("completed", 0, GONE, "completed", ""),
        ("completed", 0, RUNS, "completed", ""),
    ],
)
def test_folder_and_slurm_together_say_what_a_run_does(folder, age, job, state, said):
    report = RunReport(state=folder, attempt=1, heartbeat=time.time() - age)
    verdict = judge(report, JobNews("Slurm", "7", job))
    assert verdict.state == state
    assert said in verdict.disagreement and bool(said) == bool(verdict.disagreement)


def test_without_slurm_s_word_a_run_without_heartbeat_is_lost_and_the_rest_is_as_its_folder_says():
    assert judge(RunReport(state="running", heartbeat=time.time()), None).state == "running"
    assert judge(RunReport(state="running", heartbeat=time.time() - 300), None).state == "lost"
    assert judge(RunReport(state="pending"), None).state == "pending"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of four runs: completed, failed, running and not begun. Slurm is not there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    runs = tuple(SweepRun(name, "train", f"7_{number}") for number, name in enumerate(("done", "bad", "busy", "new")))
    write_sweep(tmp_path, Sweep("small", "slurm", "h100", budget=Budget(10.0, 8.0), runs=runs))
    done = Status("completed", attempt=2, step=100, num_steps=100, device_seconds=7200.0)
    write(tmp_path, "done", done, result={"device_seconds": 3600.0, "probes": {"linear": {"accuracy": 0.75}}})
    write(
        tmp_path,
        "bad",
        Status("failed", attempt=3, step=10, num_steps=100, reason="ValueError: no", device_seconds=1800.0),
    )
    busy = Status("running", attempt=1, step=40, num_steps=100, node="node3", job="7_2")
    write(tmp_path, "busy", busy)
    lines = [
        {"step": 50, "loss": 1.5, "seconds_per_step": 0.5, "images_per_second": 128.0},
        {"step": 50, "val_loss": 2.0},
    ]
    text = "\n".join(map(json.dumps, lines))
    RunFolder(tmp_path / "runs" / "busy").metrics.write_text(f'{text}\n{{"step": 51, "lo')
    return tmp_path


def write(study, name, status, result=None):
    folder = RunFolder(study / "runs" / name)
    if result is not None:
        write_json(folder.result, {"schema_version": 1, **result})
    folder.write_status(status)
    return folder


def test_a_study_s_runs_totals_and_hours(study):
    status = study_status(study)
    done, bad, busy, new = status.runs
    assert [run.state for run in status.runs] == ["completed", "failed", "running", "pending"]
    assert status.totals == {"failed": 1, "running": 1, "pending": 1, "completed": 1}
    assert (done.accuracy, done.attempts, done.device_hours) == (0.75, 2, 2.0)
    assert (bad.reason, bad.attempts) == ("ValueError: no", 3)
    # As last logged, which is newer than the heartbeat: 50 of 100 steps of half a second.
    assert (busy.step, busy.num_steps, busy.loss, busy.samples_per_second, busy.seconds_left) == (
        50,
        100,
        1.5,
        128.0,
        25.0,
    )
    assert busy.node == "node3" and 0 <= busy.heartbeat_age < 60
    assert (new.attempts, new.heartbeat_age, new.seconds_left) == (0, None, None)
    assert status.device_hours == 2.5
    assert not status.is_over


def test_slurm_that_does_not_answer_is_said_and_the_folders_are_believed(study):
    status = study_status(study)
    assert status.not_asked == "squeue is not on the PATH; run this where Slurm's commands are"
    assert status.disagreements == []


def test_json_has_every_run_and_the_budget(study):
    values = json.loads(json.dumps(study_status(study).to_json(), allow_nan=False))
    assert values["schema_version"] == 1
    assert values["device_hours"] == {"used": 2.5, "budget": 10.0, "predicted": 8.0}
    assert [run["name"] for run in values["runs"]] == ["done", "bad", "busy", "new"]


def test_a_cancelled_run_is_called_so(study):
    for name in ("bad", "busy", "new"):
        mark_cancelled(study / "runs" / name)
    write(study, "busy", Status("preempted", attempt=1))
    assert [run.state for run in study_status(study).runs] == ["completed", "failed", "cancelled", "cancelled"]


def test_a_file_that_cannot_be_read_costs_its_run_alone(study):
    (study / "runs" / "bad" / "status.json").write_text("{")
    status = study_status(study)
    assert [run.state for run in status.runs] == ["completed", "unreadable", "running", "pending"]
    assert "status.json is not valid JSON" in status.runs[1].reason


def test_a_local_study_on_which_nothing_works_is_over(study):
    write_sweep(study, Sweep("small", runs=(SweepRun("bad", "train", "77"), SweepRun("new", "train"))))
    status = study_status(study)
    assert status.is_idle and status.is_over
    assert [run.state for run in status.runs] == ["failed", "pending"]


def test_a_local_study_is_not_over_while_its_submission_lives(study):
    write_sweep(study, Sweep("small", runs=(SweepRun("done", "train", "77"), SweepRun("bad", "train", "77"))))
    with held(study / ".lock"):
        status = study_status(study)
        assert not status.is_over
        assert status.is_run_over("done", is_given_up=False)
        assert not status.is_run_over("bad", is_given_up=False)  # its job may try it again
        assert status.is_run_over("bad", is_given_up=True)
    assert study_status(study).is_over and study_status(study).is_run_over("bad", is_given_up=False)


@pytest.mark.parametrize(("job", "is_over"), [("RUNNING", False), ("PENDING", False), ("FAILED", True)])
def test_a_failed_run_is_over_when_its_job_is(study, job, is_over):
    (study / "squeue").write_text(f"#!/bin/sh\necho '7_1|{job}|0|256|None|node1|'\n")
    (study / "squeue").chmod(0o755)
    write_sweep(study, Sweep("small", "slurm", "h100", runs=(SweepRun("bad", "train", "7_1"),)))
    status = study_status(study)
    assert [run.state for run in status.runs] == ["failed"]
    assert status.is_over == status.runs[0].is_over == is_over


def settle(study, *names):
    """Date the folders of runs back, as if they had not changed for an hour."""
    for name in names:
        os.utime(study / "runs" / name, (NOW - 3600, NOW - 3600))


def test_a_folder_that_has_not_changed_is_not_read_again(study):
    settle(study, "done", "bad")
    first = run_reports(study, ["done", "bad"])
    # Written in place, which no program does: the folder's date stays.
    (study / "runs" / "done" / "status.json").write_text("not read")
    assert run_reports(study, ["done", "bad"]) == first
    write(study, "bad", Status("pending", attempt=3))
    assert run_reports(study, ["done", "bad"])["bad"].state == "pending"


def test_a_folder_that_changed_just_now_is_read_again_whatever_its_date(study):
    before = (study / "runs" / "bad").stat()
    assert run_reports(study, ["bad"])["bad"].state == "failed"
    write(study, "bad", Status("completed"), result={"device_seconds": 1.0, "probes": {}})
    os.utime(study / "runs" / "bad", ns=(before.st_atime_ns, before.st_mtime_ns))  # within the same tick of a clock
    assert run_reports(study, ["bad"])["bad"].state == "completed"


def test_a_probe_that_was_made_again_is_seen(study):
    settle(study, "done")
    assert run_reports(study, ["done"])["done"].accuracy == 0.75
    result = {"schema_version": 1, "device_seconds": 1.0, "probes": {"linear": {"accuracy": 0.5}}}
    write_json(study / "runs" / "done" / "result.json", result)
    assert run_reports(study, ["done"])["done"].accuracy == 0.5


def test_a_broken_cache_is_made_anew(study):
    settle(study, "done")
    first = run_reports(study, ["done"])
    (study / CACHE_NAME).write_text("{")
    assert run_reports(study, ["done"]) == first
    assert json.loads((study / CACHE_NAME).read_text())["runs"].keys() == {"done"}
