"""What a job leaves in the folders of runs that fail or are stopped, and what it does not do again."""

import datetime
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from torch import distributed as dist

from arvis_scale.engine import distributed
from arvis_scale.engine.exit_status import BAD_INPUT, FAILED, OUT_OF_MEMORY, PREEMPTED
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.launch.jobs.job import JobRun, UnfinishedRunsError, run_job
from arvis_scale.launch.jobs.meeting import Order
from arvis_scale.launch.jobs.watching import LEAVING_SECONDS, record_death
from arvis_scale.launch.jobs.worker import do_runs
from arvis_scale.launch.sweep_file import Sweep, SweepRun, write_sweep

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
def run_here(monkeypatch):
    """Return a function that does the runs of a job of one task, this process."""
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "debug")
    monkeypatch.setenv("SUBMITIT_DEBUG_JOB_ID", "1")
    return lambda *runs: run_job(list(runs))


def folders_of(tmp_path, *statuses):
    folders = [RunFolder(tmp_path / f"run{number}") for number in range(len(statuses))]
    for folder, status in zip(folders, statuses, strict=True):
        folder.write_status(status)
    return folders


def first_starts(folders):
    """Return an order to start runs for the first time."""
    return Order([("train", str(folder.path)) for folder in folders], [1] * len(folders), "127.0.0.1", 20_001, None)


def test_a_run_that_fails_before_its_attempt_is_one_more_start_and_the_next_goes_on(tmp_path, run_here):
    folders = folders_of(tmp_path, *[Status("pending", attempt=2, num_steps=10)] * 2)
    folders[0].config.write_text("[")
    with pytest.raises(UnfinishedRunsError, match="2 of 2 runs failed"):
        run_here(*(JobRun("train", str(folder.path)) for folder in folders))
    statuses = [folder.status() for folder in folders]
    assert [(status.state, status.attempt, status.num_steps) for status in statuses] == [("failed", 3, 10)] * 2
    assert [status.exit_status for status in statuses] == [BAD_INPUT] * 2
    assert "is not valid YAML" in statuses[0].reason
    assert "\n" not in statuses[0].reason


def test_a_run_that_has_completed_is_not_done_again(tmp_path, run_here):
    (folder,) = folders_of(tmp_path, Status("completed", attempt=1))
    before = folder.status_file.read_bytes()
    assert run_here(JobRun("train", str(folder.path))) == ["completed"]
    assert folder.status_file.read_bytes() == before


def test_a_run_that_ended_without_a_word_three_times_is_given_up_before_it_starts_again(tmp_path, run_here):
    (folder,) = folders_of(tmp_path, Status("pending"))
    for _ in range(3):
        folder.write_status(folder.status().next_attempt(10))
    with pytest.raises(UnfinishedRunsError, match="1 of 1 runs failed"):
        run_here(JobRun("train", str(folder.path)))
    status = folder.status()
    assert (status.state, status.attempt) == ("failed", 3)
    assert status.reason.startswith("given up: 3 starts without a new checkpoint; the last: ended without a word")


def test_raw_pixels_are_an_attempt_like_every_other_run(tmp_path, monkeypatch):
    (folder,) = folders_of(tmp_path, Status("pending", attempt=2))
    folder.config.write_text(CONFIG.replace("OUTPUT", str(folder.path)))
    with monkeypatch.context() as patched:
        patched.setattr(os, "environ", {**os.environ, "WORLD_SIZE": "1"})
        patched.setattr(distributed, "_control", None)  # forgotten afterwards, with the group that the run joins
        do_runs([("raw_pixels", str(folder.path))])
        dist.destroy_process_group()
    status = folder.status()
    assert (status.state, status.attempt) == ("failed", 3)
    assert "nowhere" in status.reason


def test_a_killed_process_is_recorded_with_the_run_it_was_at(tmp_path):
    before = folders_of(tmp_path, Status("completed", attempt=1), Status("running", attempt=1), Status("pending"))
    record_death(first_starts(before), 3, -signal.SIGKILL)
    statuses = [folder.status() for folder in before]
    assert [status.state for status in statuses] == ["completed", "failed", "pending"]
    assert statuses[1].exit_status == OUT_OF_MEMORY
    assert statuses[1].reason.startswith("the process of rank 3 on ")
    assert statuses[1].reason.endswith("was ended by SIGKILL, out of memory")


def test_what_another_process_saw_of_a_kill_follows_in_its_reason(tmp_path):
    seen = Status("failed", attempt=1, reason="RuntimeError: Connection reset by peer", exit_status=FAILED)
    (folder,) = folders_of(tmp_path, seen)
    record_death(first_starts([folder]), 1, -signal.SIGSEGV)
    status = folder.status()
    assert status.exit_status == FAILED
    assert status.reason.endswith("ended by SIGSEGV; another process: RuntimeError: Connection reset by peer")


def test_a_process_that_dies_before_its_attempt_is_one_more_start(tmp_path):
    (folder,) = folders_of(tmp_path, Status("pending", attempt=1))
    record_death(replace(first_starts([folder]), attempts=[2]), 0, 3)
    status = folder.status()
    assert (status.state, status.attempt) == ("failed", 2)
    assert "ended with status 3 without a word" in status.reason


def test_a_run_that_another_job_holds_is_not_called_dead(tmp_path):
    (folder,) = folders_of(tmp_path, Status("running", attempt=1, job="another"))
    record_death(first_starts([folder]), 0, 1)
    assert folder.status().state == "running"


@pytest.mark.parametrize("state", ["running", "failed", "pending"])
@pytest.mark.parametrize("code", [1, -signal.SIGKILL])
def test_a_run_that_a_later_start_of_the_same_job_has_is_not_called_dead(tmp_path, monkeypatch, state, code):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (folder,) = folders_of(tmp_path, Status(state, attempt=2, job="7"))
    before = folder.status_file.read_bytes()
    record_death(first_starts([folder]), 0, code)
    assert folder.status_file.read_bytes() == before


STARTS_A_WORKER = """
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", '''
import time
from arvis_scale.launch.jobs import worker
worker._die_with_parent()
print("started", flush=True)
time.sleep(60)
'''])
print(worker.pid, flush=True)
worker.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_the_process_that_trains_does_not_outlive_its_task():
    task = subprocess.Popen([sys.executable, "-c", STARTS_A_WORKER], stdout=subprocess.PIPE, text=True)
    worker = int(task.stdout.readline())
    assert task.stdout.readline() == "started\n"
    task.kill()
    task.communicate()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(worker) and psutil.Process(worker).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


SQUEUE = """#!/bin/sh
case "$*" in *%i*) echo "7|";; *) echo "RUNNING 0 {ends}";; esac
"""


@pytest.fixture
def slurm_job(tmp_path, monkeypatch):
    """Return a function (when the job ends) -> the file of the calls to scontrol; this process is its only task."""

    def start(ends="N/A"):
        scripts = {"squeue": SQUEUE.format(ends=ends), "scontrol": f'#!/bin/sh\necho "$@" >> "{tmp_path}/calls"\n'}
        for name, text in scripts.items():
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        return tmp_path / "calls"

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    for name in ("ARRAY_JOB_ID", "ARRAY_TASK_ID", "RESTART_COUNT"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    for name, value in {"JOB_ID": "7", "NTASKS": "1", "JOB_NUM_NODES": "1", "JOB_NODELIST": "node1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return start


def test_a_job_that_comes_to_a_bad_node_goes_back_untried_so_often_as_it_has_tries(tmp_path, slurm_job):
    calls = slurm_job()
    study = tmp_path / "study"
    write_sweep(study, Sweep("study", runs=(SweepRun("a", "train", "7"),)))
    folder = RunFolder(study / "runs" / "a")
    folder.write_status(Status("pending"))
    for name in ("b", "c"):
        mark = study / "node_failures" / "node1" / name
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    for attempt in (1, 2):
        assert run_job([JobRun("train", str(folder.path))]) == ["pending"]
        assert calls.read_text().splitlines() == ["requeue 7", "update JobId=7 ExcNodeList=node1"] * attempt
        assert folder.status().attempt == attempt
    with pytest.raises(UnfinishedRunsError):
        run_job([JobRun("train", str(folder.path))])
    assert len(calls.read_text().splitlines()) == 4
    assert folder.status().reason.startswith("given up: 3 starts without a new checkpoint; the last: not tried on")
    assert "node_failures" in folder.status().reason


# Python imports a file of this name by itself: the process that trains is at its last validation, and hears nothing.
VALIDATING = """
import os, sys, time
if "arvis_scale.launch.jobs.worker" in sys.orig_argv:
    from arvis_scale.engine.preemption import PreemptionFlag
    from arvis_scale.engine.run_folder import RunFolder
    folder = RunFolder(sys.orig_argv[-1])
    with PreemptionFlag():
        if not os.environ.get("STARTS_SLOWLY"):
            folder.write_status(folder.status().next_attempt(10, begun_from=10))
        time.sleep(60)
"""


@pytest.mark.parametrize(("starts_slowly", "seconds"), [("", 3), ("1", 1)])
def test_a_run_that_cannot_stop_in_time_is_ended_and_put_back(tmp_path, monkeypatch, slurm_job, starts_slowly, seconds):
    (tmp_path / "sitecustomize.py").write_text(VALIDATING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("STARTS_SLOWLY", starts_slowly)
    ends = datetime.datetime.now() + datetime.timedelta(seconds=LEAVING_SECONDS + seconds)
    calls = slurm_job(ends.isoformat(timespec="seconds"))
    (folder,) = folders_of(tmp_path, Status("pending"))
    (folder.checkpoints / "step_00000010").mkdir(parents=True)
    assert run_job([JobRun("train", str(folder.path))]) == ["pending"]
    assert datetime.datetime.now() < ends - datetime.timedelta(seconds=LEAVING_SECONDS / 2)
    assert calls.read_text() == "requeue 7\n"
    (end,) = folder.status().ends
    assert (end.state, end.exit_status, end.begun_from, end.job) == ("preempted", PREEMPTED, 10, "7")
    assert end.reason == "time limit: ended 10 s before the job, as it did not stop by itself"
