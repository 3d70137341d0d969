"""Which runs of a study are started, and which are left to whoever works on them."""

import subprocess
import sys

import pytest
import torch

from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.launch import sweep_file
from arvis_scale.launch.executors.local_jobs import gpu_names
from arvis_scale.launch.locks import held
from arvis_scale.launch.studies.study import load_study
from arvis_scale.launch.submit import runs_to_start, submit
from arvis_scale.launch.sweep_file import Sweep, SweepRun

STUDY = """
schema_version: 1
name: split
base: digits
set: {data.shards: shards/digits, samples_seen: 64, preset: nano}
axes:
  objective: [xtra, aim]
references: false
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "split.yaml").write_text(STUDY)
    return load_study(tmp_path / "split.yaml", tmp_path / "out")


@pytest.fixture
def process():
    """Return a function that starts a process of a given command line, which waits until the end of the test."""
    started = []

    def start(*words):
        command = [sys.executable, "-c", "print(flush=True); input()", *words]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        started[-1].stdout.readline()
        return started[-1].pid

    yield start
    for process in started:
        process.communicate()


def write_sweep(study, job_id):
    study.output.mkdir(parents=True, exist_ok=True)
    runs = [SweepRun(run.config.name, run.kind, str(job_id)) for run in study.runs]
    sweep_file.write_sweep(study.output, Sweep(study.name, runs=tuple(runs)))


def names(runs):
    return [run.config.objective for run in runs]


def controller(study):
    """Return the words on the command line of a job's controller."""
    return "submitit.local._local", str(study.output / "logs")


@pytest.mark.parametrize("state", ["pending", "preempted", "failed"])
def test_runs_of_a_living_job_are_left_to_it(study, process, state):
    write_sweep(study, process(*controller(study)))
    RunFolder(study.runs[0].config.output).write_status(Status(state, attempt=1))
    to_start, left = runs_to_start(study)
    assert (names(to_start), names(left)) == ([], ["xtra", "aim"])


@pytest.mark.parametrize("words", [("something", "else"), ("submitit.local._local", "/another/study/logs")])
def test_a_job_number_that_now_is_another_process_holds_nothing_back(study, process, words):
    write_sweep(study, process(*words))
    to_start, left = runs_to_start(study)
    assert (names(to_start), names(left)) == (["xtra", "aim"], [])


def test_pending_runs_of_a_dead_job_are_started(study):
    ended = subprocess.Popen([sys.executable, "-c", "", *controller(study)])
    ended.wait()
    write_sweep(study, ended.pid)
    assert names(runs_to_start(study)[0]) == ["xtra", "aim"]


def test_a_run_with_a_heartbeat_is_left_alone_and_a_completed_one_is_neither(study):
    RunFolder(study.runs[0].config.output).write_status(Status("completed"))
    RunFolder(study.runs[1].config.output).write_status(Status("running"))
    to_start, left = runs_to_start(study)
    assert (names(to_start), names(left)) == ([], ["aim"])


def test_jobs_of_runs_that_the_study_has_no_more_are_not_lost_sight_of(study, process, tmp_path):
    write_sweep(study, process(*controller(study)))
    (tmp_path / "fewer.yaml").write_text(STUDY.replace("[xtra, aim]", "[xtra]"))
    fewer = load_study(tmp_path / "fewer.yaml", study.output)
    with pytest.raises(ValueError, match=r"1 runs that are no longer .* living jobs: aim-.*sweep cancel") as caught:
        runs_to_start(fewer)
    assert "\n" not in str(caught.value)
    RunFolder(study.runs[1].config.output).write_status(Status("completed"))
    runs_to_start(fewer)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    from arvis_scale.data.build import build_shards

    folder = tmp_path_factory.mktemp("data") / "digits"
    build_shards("digits", folder)
    return folder


def test_a_second_submission_at_the_same_time_is_refused(tmp_path, shards):
    (tmp_path / "split.yaml").write_text(STUDY)
    study = load_study(tmp_path / "split.yaml", tmp_path / "out", [f"data.shards={shards}"])
    with (
        held(study.output / ".lock"),
        pytest.raises(ValueError, match="another `sweep submit` is at work, the 2 unfinished runs are left to it"),
    ):
        submit(study, ["arvis-scale"])
    assert not (study.output / "study.yaml").exists()


def test_teacher_tokens_that_would_take_too_much_are_refused_before_anything_is_written(tmp_path, shards):
    (tmp_path / "split.yaml").write_text(STUDY.replace("[xtra, aim]", "[digpt]"))
    given = [f"data.shards={shards}", f"teacher.tokens={tmp_path / 'tokens'}", "teacher.kind=pixels"]
    study = load_study(tmp_path / "split.yaml", tmp_path / "out", [*given, "launch.token_views=100000"])
    with pytest.raises(
        ValueError, match=r"teacher.tokens=.* GB, more than launch.max_token_gb=10; raise that"
    ) as caught:
        submit(study, ["arvis-scale"])
    assert "\n" not in str(caught.value)
    assert not study.output.exists()


def test_more_processes_than_gpus_are_refused_before_anything_is_written(tmp_path, shards, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    (tmp_path / "split.yaml").write_text(STUDY)
    wide = ["launch.max_parallel=2", "parallel.processes=2", "micro_batch_size=32", f"data.shards={shards}"]
    study = load_study(tmp_path / "split.yaml", tmp_path / "out", wide)
    with pytest.raises(ValueError, match="parallel.processes=2, one per GPU, but this machine has 1; lower it"):
        submit(study, ["arvis-scale"])
    assert not study.output.exists()


def test_gpus_are_those_that_this_process_may_see(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8a1f")
    assert gpu_names() == ["3", "GPU-8a1f"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu_names() == ["0", "1"]
