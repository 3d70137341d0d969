"""A node on which different runs fail is kept out of a study; a run that fails everywhere accuses none."""

import pytest

from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.jobs.bad_nodes import bad_nodes, record_failure
from arvis_scale.launch.sweep_file import Sweep, SweepRun, write_sweep

# Of node lists in brackets it knows one.
SCONTROL = """#!/bin/sh
if [ "$2" = hostnames ]; then printf "node8\\nnode9\\n"; else echo "$@" >> {calls}; fi
"""
# Two jobs wait, of which one was submitted to stay away from two nodes.
SQUEUE = """#!/bin/sh
case "$*" in *--states=PENDING*) echo "7_0|"; echo "8|node[8-9]";; esac
"""

# Partitions of four nodes, of one, and one of which Slurm says nothing.
SINFO = """#!/bin/sh
case "$*" in *--partition=wide*) seq --format=node%.0f 4;; *--partition=single*) echo node1;; esac
"""


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """Return the file to which a stand-in for scontrol writes its arguments, beside one for squeue."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    calls.touch()
    scripts = {"scontrol": SCONTROL.format(calls=calls), "squeue": SQUEUE, "sinfo": SINFO}
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_PARTITION", "wide")
    return calls


@pytest.fixture
def study(tmp_path):
    """A study of three runs in three jobs, of which two wait."""
    jobs = {"a": "7_0", "b": "7_1", "c": "8"}
    write_sweep(tmp_path, Sweep("study", runs=tuple(SweepRun(name, "train", job) for name, job in jobs.items())))
    return tmp_path


def fail(study, run, node):
    record_failure(RunFolder(study / "runs" / run), node)


def test_two_failures_of_one_run_are_its_own(study, scontrol):
    fail(study, "a", "node1")
    fail(study, "a", "node1")
    assert bad_nodes(study) == []
    assert scontrol.read_text() == ""


def test_a_node_on_which_two_runs_failed_is_kept_from_the_jobs_that_wait(study, scontrol):
    fail(study, "a", "node1")
    fail(study, "b", "node1")
    assert bad_nodes(study) == ["node1"]
    assert scontrol.read_text().splitlines() == [
        "update JobId=7_0 ExcNodeList=node1",
        "update JobId=8 ExcNodeList=node1,node8,node9",
    ]


def test_runs_that_fail_elsewhere_too_take_the_blame_from_the_node(study, scontrol):
    fail(study, "a", "node1")
    fail(study, "b", "node1")
    fail(study, "b", "node2")
    assert bad_nodes(study) == []
    assert scontrol.read_text().splitlines()[-2:] == [
        "update JobId=7_0 ExcNodeList=",
        "update JobId=8 ExcNodeList=node8,node9",
    ]


@pytest.mark.parametrize(("partition", "bad"), [("wide", ["node1"]), ("single", []), ("silent", []), ("", [])])
def test_the_only_node_of_a_partition_is_never_bad(study, scontrol, monkeypatch, partition, bad):
    monkeypatch.setenv("SLURM_JOB_PARTITION", partition)
    fail(study, "a", "node1")
    fail(study, "b", "node1")
    assert bad_nodes(study) == bad
    assert len(scontrol.read_text().splitlines()) == 2 * len(bad)


def test_when_more_than_half_of_the_nodes_go_bad_together_none_is_left_out(study, scontrol):
    for node in ("node1", "node2"):
        for number in (1, 2):
            fail(study, f"{node}_{number}", node)
    assert bad_nodes(study) == ["node1", "node2"]
    for number in (1, 2):
        fail(study, f"node3_{number}", "node3")
    assert bad_nodes(study) == []
    assert scontrol.read_text().splitlines()[-2:] == [
        "update JobId=7_0 ExcNodeList=",
        "update JobId=8 ExcNodeList=node8,node9",
    ]


def test_a_run_of_no_study_accuses_none(tmp_path, scontrol):
    fail(tmp_path, "a", "node1")
    fail(tmp_path, "b", "node1")
    assert not (tmp_path / "node_failures").exists()
