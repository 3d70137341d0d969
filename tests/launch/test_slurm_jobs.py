"""What is read out of squeue and sacct, whose lines here are those of a real Slurm 22.05."""

import pytest

from arvis_scale.launch.slurm_jobs import JobState, SlurmError, job_states

SQUEUE = """\
9_0                 |CANCELLED     |0           |0               |JobHeldUser     |             |
7                   |FAILED        |0           |768             |NonZeroExitCode |testnode1    |
6_1                 |PENDING       |0           |0               |JobArrayTaskLimit|            |
10                  |PENDING       |1           |0               |BeginTime       |             |
6_0                 |RUNNING       |0           |0               |None            |testnode[1-2]|
"""
SACCT = """\
5|NODE_FAIL|0:0|None|testnode2
5|REQUEUED|0:0|None|testnode2
5|CANCELLED by 1000|0:15|None|testnode3
7|FAILED|3:0|None|testnode1
9_[0-4:2,7%3]|CANCELLED by 0|0:0|None|None assigned
10|REQUEUED|0:0|None|testnode1
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Return a function that puts commands on the PATH: the text that each prints, and how it ends."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def install(**commands):
        for name, (text, status) in commands.items():
            (tmp_path / f"{name}.txt").write_text(text)
            stream = 1 if status == 0 else 2
            (tmp_path / name).write_text(f"#!/bin/sh\ncat {tmp_path}/{name}.txt >&{stream}\nexit {status}\n")
            (tmp_path / name).chmod(0o755)

    return install


def test_what_waits_and_runs_is_as_squeue_says(slurm):
    slurm(squeue=(SQUEUE, 0), sacct=(SACCT, 0))
    found = job_states(["6_0", "6_1", "10"])
    assert found == {
        "6_0": JobState("RUNNING", node="testnode[1-2]"),
        "6_1": JobState("PENDING", reason="JobArrayTaskLimit"),
        "10": JobState("PENDING", reason="BeginTime", restarts=1),
    }
    assert all(state.is_living for state in found.values())


def test_what_ended_has_its_status_and_its_reason(slurm):
    slurm(squeue=(SQUEUE, 0), sacct=(SACCT, 0))
    found = job_states(["7"])
    assert found == {"7": JobState("FAILED", "testnode1", "NonZeroExitCode", "3:0")}
    assert not found["7"].is_living


def test_what_squeue_has_forgotten_the_accounting_knows_with_its_restarts(slurm):
    slurm(squeue=(SQUEUE, 0), sacct=(SACCT, 0))
    found = job_states(["5", "9_4", "9_7", "9_3", "1234"])
    assert found == {
        "5": JobState("CANCELLED", "testnode3", exit_code="0:15", restarts=2),
        "9_4": JobState("CANCELLED", exit_code="0:0"),
        "9_7": JobState("CANCELLED", exit_code="0:0"),
    }


def test_without_accounting_squeue_s_word_is_enough(slurm):
    slurm(squeue=(SQUEUE, 0), sacct=("Slurm accounting storage is disabled\n", 1))
    assert job_states(["7", "5"]) == {"7": JobState("FAILED", "testnode1", "NonZeroExitCode", "3:0")}


def test_a_job_that_nobody_knows_is_missing(slurm):
    slurm(squeue=("slurm_load_jobs error: Invalid job id specified\n", 1), sacct=("", 0))
    assert job_states(["99"]) == {}


def test_a_controller_that_is_away_is_no_answer(slurm):
    slurm(squeue=("slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", 1), sacct=(SACCT, 0))
    with pytest.raises(SlurmError, match="Unable to contact slurm controller"):
        job_states(["7"])


def test_without_the_command_sacct_squeue_s_word_is_enough(slurm, monkeypatch, tmp_path):
    slurm(squeue=(SQUEUE, 0))
    (tmp_path / "cat").symlink_to("/bin/cat")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert job_states(["7"])["7"].state == "FAILED"


def test_no_squeue_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="squeue is not on the PATH"):
        job_states(["7"])
