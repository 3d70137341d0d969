"""Which runs are cancelled and which are resumed."""

import os

import pytest

from arvis_scale.engine.exit_status import BAD_INPUT, FAILED, OUT_OF_MEMORY, STOPPED_BY_GUARD
from arvis_scale.engine.run_folder import End, RunFolder, Status
from arvis_scale.launch.cancellation import is_cancelled, mark_cancelled, take_back
from arvis_scale.launch.jobs.retries import Next, after_start
from arvis_scale.launch.resuming import is_given_up
from arvis_scale.launch.stopping import cancel_runs
from arvis_scale.launch.studies.study import load_study
from arvis_scale.launch.sweep_file import Sweep, SweepRun, write_sweep

STUDY = """
schema_version: 1
name: split
base: digits
set: {data.shards: shards/digits, samples_seen: 64, preset: nano}
axes:
  objective: [xtra, aim]
references: false
launch: {max_attempts: 2}
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "split.yaml").write_text(STUDY)
    return load_study(tmp_path / "split.yaml", tmp_path / "out")


def names(study):
    return [run.config.name for run in study.runs]


def test_a_run_that_shares_its_job_with_one_that_is_to_go_on_is_not_cancelled(study):
    # A job that no test may end: only its number is looked at.
    runs = tuple(SweepRun(name, "train", str(os.getpid())) for name in names(study))
    write_sweep(study.output, Sweep("split", runs=runs))
    first, second = names(study)
    with pytest.raises(ValueError, match=f"{first} shares job {os.getpid()} with {second}"):
        cancel_runs(study.output, [first])
    assert not is_cancelled(study.output / "runs" / first)


def test_nothing_is_cancelled_while_slurm_does_not_answer(study, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    first, _ = names(study)
    write_sweep(study.output, Sweep("split", "slurm", "testcluster", runs=(SweepRun(first, "train", "7"),)))
    with pytest.raises(ValueError, match="nothing is cancelled, Slurm did not answer: squeue is not on the PATH"):
        cancel_runs(study.output)
    assert not is_cancelled(study.output / "runs" / first)


def test_what_a_killed_run_had_not_saved_is_told_and_its_folder_put_right(study):
    first, _ = names(study)
    write_sweep(study.output, Sweep("split", runs=(SweepRun(first, "train", "4000001"),)))
    folder = RunFolder(study.output / "runs" / first)
    folder.write_status(Status("running", attempt=1, step=37, num_steps=50))
    (folder.checkpoints / "step_00000030").mkdir(parents=True)
    (cancelled,) = cancel_runs(study.output)
    assert (cancelled.name, cancelled.saved_step, cancelled.lost_steps, cancelled.is_living) == (first, 30, 7, False)
    assert (folder.status().state, folder.status().reason) == ("preempted", "cancelled before it had saved")


def test_the_mark_of_a_cancelled_run_can_be_taken_back(tmp_path):
    mark_cancelled(tmp_path)
    mark_cancelled(tmp_path)
    assert is_cancelled(tmp_path)
    take_back(tmp_path)
    take_back(tmp_path)
    assert not is_cancelled(tmp_path)


@pytest.mark.parametrize("state", ["pending", "preempted", "failed"])
def test_a_job_leaves_a_cancelled_run_alone(tmp_path, state):
    folder = RunFolder(tmp_path)
    folder.write_status(Status(state, attempt=1))
    assert after_start(folder, max_attempts=3)[0] is not Next.NOTHING
    mark_cancelled(folder.path)
    assert after_start(folder, max_attempts=3)[0] is Next.NOTHING


def end(attempt):
    return End(attempt, "failed", "RuntimeError: no", FAILED, 0, 0, 0.0, "7", "node1")


@pytest.mark.parametrize(
    ("status", "given_up"),
    [
        (Status("failed", attempt=1, exit_status=FAILED), False),
        (Status("failed", attempt=2, exit_status=FAILED, ends=[end(1)]), True),  # launch.max_attempts
        (Status("failed", attempt=1, exit_status=BAD_INPUT), False),  # mended before resuming, or refused again at once
        (Status("failed", attempt=1, exit_status=OUT_OF_MEMORY, out_of_memory_at=8), True),
        (Status("failed", attempt=1, exit_status=STOPPED_BY_GUARD), True),
        (Status("preempted", attempt=3, ends=[end(1), end(2)]), False),
        (Status("pending"), False),
    ],
)
def test_what_failed_again_and_again_is_given_up(study, status, given_up):
    run = study.runs[0]
    RunFolder(run.config.output).write_status(status)
    assert is_given_up(run, study) == given_up
