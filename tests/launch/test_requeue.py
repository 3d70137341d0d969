"""A job asks for its requeue once, and not where Slurm has ended it or put it back by itself."""

import signal
import subprocess
import sys

import pytest

from arvis_scale.launch.jobs import requeue

# Answers with the file's first line, and removes it while there are others.
ANSWERS = """#!/bin/sh
line=$(head -1 {answers})
[ $(wc -l < {answers}) -gt 1 ] && sed -i 1d {answers}
case $line in away) echo "Unable to contact slurm controller" >&2; exit 1;; esac
echo "$line"
"""
SCONTROL = """#!/bin/sh
echo "$@" >> {calls}
exit $(cat {status})
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Return a function (squeue's answers, scontrol's status) -> whether the job is requeued, and scontrol's calls."""
    answers, calls, status = tmp_path / "answers", tmp_path / "calls", tmp_path / "status"
    for name, text in {
        "squeue": ANSWERS.format(answers=answers),
        "scontrol": SCONTROL.format(calls=calls, status=status),
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(requeue, "_PAUSE_SECONDS", 0.01)

    def ask(*lines, exit_status=0):
        calls.touch()
        answers.write_text("\n".join(lines) + "\n")
        status.write_text(str(exit_status))
        return requeue.requeue_this_job(), calls.read_text().splitlines()

    return ask


def test_a_running_job_is_put_back_by_its_number_in_the_array(slurm):
    assert slurm("RUNNING 1 2026-11-22T08:00:00") == (True, ["requeue 7_3"])


@pytest.mark.parametrize("line", ["COMPLETING 1 N/A", "CANCELLED 1 N/A", "PENDING 2 N/A", "RUNNING 2 N/A"])
def test_a_job_that_was_cancelled_or_put_back_already_is_left_alone(slurm, line):
    assert slurm(line) == (False, [])


def test_a_controller_that_is_away_is_asked_again(slurm):
    assert slurm("away", "away", "RUNNING 1 N/A") == (True, ["requeue 7_3"])


def test_slurms_refusal_is_its_last_word(slurm, caplog):
    assert slurm("RUNNING 1 N/A", exit_status=1) == (False, ["requeue 7_3"])
    assert "sweep resume" in caplog.text


def test_where_slurms_commands_are_missing_nobody_is_waited_for(tmp_path, monkeypatch, caplog):
    """As in a container."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert requeue.requeue_this_job() is False
    assert "`container` of the profile" in caplog.text


def test_the_end_of_the_job_is_read_from_slurm(slurm, monkeypatch):
    slurm("RUNNING 1 2026-11-22T08:00:00")
    job = requeue.this_job()
    assert job is not None and job.ends_at is not None
    slurm("RUNNING 1 N/A")
    assert requeue.this_job() == requeue.QueuedJob("RUNNING", 1, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_program_that_starts_does_not_die_of_a_signal_to_stop_but_can_ask_for_it(number):
    program = """
import os, signal
os.kill(os.getpid(), NUMBER)
signal.signal(NUMBER, lambda *arguments: print("heard", flush=True))
os.kill(os.getpid(), NUMBER)
""".replace("NUMBER", str(int(number)))
    done = subprocess.run([*requeue.DEAF, sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n")


ONE_ARRAY = """#!/bin/sh
case "$*" in *--jobs=12345678\\ *) seq --format='12345678_%.0f|' 0 15000;; esac
"""


def test_the_tasks_of_a_large_array_are_asked_for_in_words_that_the_system_takes(slurm, tmp_path):
    slurm("RUNNING 1 N/A")
    (tmp_path / "calls").unlink()
    (tmp_path / "squeue").write_text(ONE_ARRAY)
    requeue.exclude_nodes([f"12345678_{task}" for task in range(12_000)], ["node1"], states="PENDING")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert all(call.startswith("update JobId=") and call.endswith(" ExcNodeList=node1") for call in calls)
    updated = [job for call in calls for job in call.split()[1].removeprefix("JobId=").split(",")]
    assert updated == [f"12345678_{task}" for task in range(12_000)]
