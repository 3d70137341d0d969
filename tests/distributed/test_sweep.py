"""A sweep through submitit's local executor: failures are kept apart, and only what is missing is started again."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import timm
import torch
from safetensors.torch import save_file

from arvis_scale.data.token_manifest import read_manifest
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.executors.local_jobs import is_living_job
from arvis_scale.launch.sweep_file import read_sweep

pytestmark = pytest.mark.processes

STUDY = """
schema_version: 1
name: sweep
base: digits
set: {samples_seen: 64, preset: nano, data.validation_images: 20}
axes:
  objective: [xtra, aim]
  unique_images: [10]
references: false
launch: {max_parallel: 2, runs_per_job: 2}
"""
TOKENS = """
schema_version: 1
name: tokens
base: digits
set: {preset: pico, samples_seen: 64, data.validation_images: 20, teacher.kind: timm, teacher.architecture: test_vit}
axes:
  objective: [digpt]
  unique_images: [10, 20]
references: false
launch: {executor: debug, token_views: 2}
"""
SLOW = """
schema_version: 1
name: slow
base: mine.yaml
axes:
  seed: [0, 1]
references: false
launch: {max_parallel: 1, runs_per_job: 2}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory, digits, arvis_scale):
    """A study whose second run fails at first: something that is not a folder is where its checkpoints belong."""
    folder = tmp_path_factory.mktemp("a sweep")
    (folder / "sweep.yaml").write_text(STUDY)
    broken = folder / "out" / "runs" / "aim-nano-u10-n64-s0" / "tensorboard"
    broken.parent.mkdir(parents=True)
    broken.write_text("a file where a folder belongs")

    def submit():
        return arvis_scale(
            "sweep", "submit", folder / "sweep.yaml", f"data.shards={digits}", f"probe_data.shards={digits}",
            "--output", folder / "out",
        )  # fmt: skip

    first = submit()
    first_status = {path.name: RunFolder(path).status() for path in (folder / "out" / "runs").iterdir()}
    broken.unlink()
    second = submit()
    return folder / "out", first, first_status, second


def test_a_failing_run_is_named_and_the_others_go_on(study):
    _, first, status, _ = study
    assert first.returncode == 1
    assert "1 of 2 runs completed" in first.stdout
    assert status["xtra-nano-u10-n64-s0"].state == "completed"
    assert status["aim-nano-u10-n64-s0"].state == "failed"
    assert "FileExistsError" in status["aim-nano-u10-n64-s0"].reason
    assert "FileExistsError" in first.stdout


def test_submitting_again_starts_only_what_is_missing(study):
    folder, _, _, second = study
    assert second.returncode == 0
    attempts = {path.name: RunFolder(path).status().attempt for path in (folder / "runs").iterdir()}
    assert attempts == {"xtra-nano-u10-n64-s0": 1, "aim-nano-u10-n64-s0": 2}


def test_sweep_json_names_every_run_with_its_job_and_the_commands(study):
    folder, *_ = study
    sweep = read_sweep(folder)
    assert [run.name for run in sweep.runs] == ["xtra-nano-u10-n64-s0", "aim-nano-u10-n64-s0"]
    for run in sweep.runs:
        assert list((folder / "logs").glob(f"{run.job}_0_log.out"))
    (line,) = sweep.commands
    assert shlex.split(line)[:3] == ["arvis-scale", "sweep", "submit"]
    assert shlex.split(line)[3] == str(folder.parent / "sweep.yaml")


def test_status_shows_every_run(study, arvis_scale):
    shown = arvis_scale("sweep", "status", study[0])
    assert shown.returncode == 0
    assert "2 runs of sweep: 2 completed" in shown.stdout


def test_debug_runs_a_study_in_its_process_after_storing_the_tokens_that_it_needs(tmp_path, digits, arvis_scale):
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "teacher.safetensors")
    (tmp_path / "tokens.yaml").write_text(TOKENS)
    submitted = arvis_scale(
        "sweep", "submit", "tokens.yaml", f"data.shards={digits}", "teacher.checkpoint=teacher.safetensors",
        "teacher.tokens=tokens", cwd=tmp_path,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr
    assert "2 of 2 runs completed" in submitted.stdout
    manifest = read_manifest(tmp_path / "tokens")
    assert manifest.is_complete
    assert (manifest.parts["train"].num_images, manifest.parts["train"].views) == (20, 2)
    assert not read_sweep(tmp_path / "runs" / "tokens").jobs


@pytest.fixture
def slow_study(tmp_path, digits, environment):
    """A submission whose first run is under way; its second run waits in the same job."""
    base = {"schema_version": 1, "objective": "xtra", "preset": "nano", "image_size": 32, "patch_size": 8}
    base |= {"global_batch_size": 64, "micro_batch_size": 64, "samples_seen": 64 * 450, "unique_images": 100}
    base |= {"log": {"metrics_every": 1}, "checkpoints": {"every": 0}, "xtra": {"block_side": 2}}
    base |= {"data": {"shards": str(digits), "validation_images": 20}}
    (tmp_path / "mine.yaml").write_text(json.dumps(base))
    (tmp_path / "slow.yaml").write_text(SLOW)
    command = [sys.executable, "-m", "arvis_scale", "sweep", "submit", "slow.yaml", "--output", "out"]
    # Tests that a shell runs in its background ignore Ctrl-C, and so would what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    submission = subprocess.Popen(
        command, cwd=tmp_path, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    folders = [RunFolder(tmp_path / "out" / "runs" / f"xtra-nano-u100-n28800-s{seed}") for seed in (0, 1)]
    deadline = time.monotonic() + 60
    while not folders[0].metrics.exists() or not folders[0].metrics.read_text():
        assert time.monotonic() < deadline and submission.poll() is None
        time.sleep(0.05)
    yield tmp_path / "out", folders, submission
    if submission.poll() is None:
        submission.send_signal(signal.SIGINT)
        submission.wait()


def test_ctrl_c_lets_runs_save_and_they_go_on_from_there(slow_study, arvis_scale, tmp_path_factory):
    folder, runs, submission = slow_study
    os.killpg(submission.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    _, said = submission.communicate(timeout=60)
    assert submission.returncode != 0
    assert "interrupted: the runs save and stop, which may take up to 60 s" in said
    first, second = [run.status() for run in runs]
    assert (first.state, first.reason, second.state) == ("preempted", "SIGTERM", "pending")
    assert (runs[0].checkpoints / f"step_{first.step:08d}").is_dir()
    assert 0 < first.step < 450

    # From elsewhere, and without the files that the study was first submitted with.
    (folder.parent / "mine.yaml").unlink()
    again = arvis_scale("sweep", "submit", folder / "study.yaml", cwd=tmp_path_factory.mktemp("elsewhere"))
    assert again.returncode == 0, again.stderr[-2000:]
    assert [(run.status().state, run.status().attempt) for run in runs] == [("completed", 2), ("completed", 1)]
    lines = [json.loads(line) for line in runs[0].metrics.read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == sorted(set(steps))


def test_a_job_that_outlives_its_submission_keeps_its_runs(slow_study, arvis_scale):
    folder, runs, submission = slow_study
    submission.kill()
    submission.communicate()
    job = int(read_sweep(folder).runs[0].job)
    os.killpg(job, signal.SIGSTOP)  # so that it does not end too early
    again = arvis_scale("sweep", "submit", folder / "study.yaml")
    os.killpg(job, signal.SIGCONT)
    assert "2 of 2 runs are left to an earlier submission's living jobs" in again.stderr
    assert again.returncode == 1
    deadline = time.monotonic() + 60
    while any(run.status().state != "completed" for run in runs) or is_living_job(str(job), folder / "logs"):
        assert time.monotonic() < deadline, [run.status() for run in runs]
        time.sleep(0.2)
    assert [run.status().attempt for run in runs] == [1, 1]
