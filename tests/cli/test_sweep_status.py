"""`arvis-scale sweep status`, `logs`, `cancel`, `resume`: what they print, and one line for bad input."""

import json
import sys

import pytest

from arvis_scale import cli
from arvis_scale.engine.run_folder import End, RunFolder, Status
from arvis_scale.launch.cancellation import is_cancelled
from arvis_scale.launch.sweep_file import Budget, Sweep, SweepRun, write_sweep


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; return its status and what it wrote."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["arvis-scale", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def study(tmp_path):
    """A local study on which nothing works: two runs failed alike, one has not begun."""
    failed = Status("failed", attempt=2, step=30, num_steps=100, reason="ValueError: [shards] are gone")
    failed.ends = [End(1, "preempted", "SIGTERM", 75, 20, 0, 0.0, "4000001", "node1")]
    runs = (SweepRun("a", "train", "4000002"), SweepRun("b", "train", "4000002"), SweepRun("c", "train"))
    write_sweep(tmp_path, Sweep("small", budget=Budget(2.0, 1.0), runs=runs))
    for name in "ab":
        RunFolder(tmp_path / "runs" / name).write_status(failed)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "4000002_0_log.out").write_text("first\nsecond\n")
    (tmp_path / "logs" / "4000002_1_log.out").write_text("of rank 1\n")
    (tmp_path / "logs" / "4000001_0_log.out").write_text("earlier\n")
    (tmp_path / "logs" / "4000002_1_0_log.out").write_text("of another job, task 1 of an array\n")
    return tmp_path


def test_status_is_a_table_totals_hours_and_each_reason_once(run, study):
    code, said, _ = run("sweep", "status", study)
    assert code == 0
    assert "30/100" in said
    assert "3 runs of small: 2 failed, 1 pending" in said
    assert "0.00 device hours used of a budget of 2.00; 1.00 were predicted for the whole study" in said
    assert "a and 1 more: ValueError: [shards] are gone" in said
    assert "nothing works on this study now" in said


def test_status_of_a_large_study_shows_first_what_somebody_has_to_look_at(run, study):
    runs = [SweepRun(f"r{number}", "train") for number in range(200)]
    write_sweep(study, Sweep("large", runs=(*runs, SweepRun("a", "train"))))
    _, said, _ = run("sweep", "status", study)
    assert said.splitlines()[3].split()[1] == "a"
    assert "101 further runs: --all or --json shows them" in said
    _, said, _ = run("sweep", "status", study, "--all")
    assert "r199" in said and "further runs" not in said


def test_watching_a_study_on_which_nothing_works_ends(run, study):
    code, said, _ = run("sweep", "status", study, "--watch")
    assert code == 0
    assert "2 failed, 1 pending" in said


def test_status_as_json(run, study):
    code, said, _ = run("sweep", "status", study, "--json")
    assert code == 0
    status = json.loads(said)
    assert status["totals"] == {"failed": 2, "pending": 1}
    assert status["is_idle"]


def test_logs_are_those_of_every_rank_of_the_last_job(run, study):
    code, said, _ = run("sweep", "logs", study, "a")
    assert code == 0
    headline, *lines = said.splitlines()
    assert headline == "job 4000002 of a; shared with b; earlier jobs: 4000001 (--job)"
    assert lines == ["0| first", "0| second", "1| of rank 1"]


def test_logs_of_an_earlier_job(run, study):
    assert run("sweep", "logs", study, "a", "--job", "4000001")[1].splitlines()[1:] == ["earlier"]


def test_following_the_log_of_a_run_that_is_over_ends_with_its_last_line(run, study):
    code, said, _ = run("sweep", "logs", study, "a", "--follow")
    assert code == 0
    assert said.splitlines()[1:] == ["0| first", "0| second", "1| of rank 1"]


def test_nothing_to_cancel_is_said(run, study):
    assert run("sweep", "cancel", study, "a") == (
        0,
        "nothing to cancel: all of these runs are completed, failed or cancelled already\n",
        "",
    )


def test_a_run_that_has_not_begun_is_cancelled(run, study):
    code, said, _ = run("sweep", "cancel", study)
    assert code == 0
    assert "1 runs cancelled: 0 saved at their last step, 1 had done none, 0 lost steps" in said
    assert [is_cancelled(study / "runs" / name) for name in "abc"] == [False, False, True]
    assert "2 failed, 1 cancelled" in run("sweep", "status", study)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("status", "{study}/nowhere"), "nowhere is not a study folder: sweep.json is missing"),
        (("status", "{study}", "--watch", "--json"), "--json does not go with it"),
        (("logs", "{study}", "aa"), "has no run 'aa'"),
        (("logs", "{study}", "c"), "c was given to no job yet"),
        (("logs", "{study}", "a", "--job", "17"), "a had no job 17; its jobs: 4000001, 4000002"),
        (("cancel", "{study}", "nobody"), "has no run 'nobody'"),
        (("resume", "{study}"), "study.yaml does not exist"),
        (("resume", "{study}/nowhere"), "is not a study folder"),
        (("tensorboard", "{study}/nowhere"), "is not a study folder"),
    ],
)
def test_bad_input_ends_with_one_line(run, study, arguments, said):
    status, _, error = run("sweep", *(argument.format(study=study) for argument in arguments))
    assert status == 2
    assert error.startswith("error: ") and said in error
    assert error.count("\n") == 1
