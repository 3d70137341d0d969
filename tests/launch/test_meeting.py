"""How the tasks of a job agree on what to train and where to meet."""

import threading
import time

import pytest

from arvis_scale.launch.jobs.meeting import Order, Task

ORDER = Order([("train", "runs/a b"), ("raw_pixels", "runs/c")], [3, 1], "127.0.0.1", 20_001, 1_800_000_000.5)


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Return a function (rank, restart) -> the task of a Slurm job of two processes on one node."""
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SUBMITIT_FOLDER", str(tmp_path))
    job = {"JOB_ID": 7, "NTASKS": 2, "JOB_NUM_NODES": 1, "NODEID": 0, "JOB_NODELIST": "node1"}

    def make(rank, restart=0):
        for name, value in {**job, "PROCID": rank, "LOCALID": rank, "RESTART_COUNT": restart}.items():
            monkeypatch.setenv(f"SLURM_{name}", str(value))
        return Task()

    return make


def test_the_others_do_what_the_first_orders(task):
    first, second = task(0), task(1)
    assert (first.is_first, second.is_first) == (True, False)
    threading.Timer(0.2, first.give, (0, ORDER)).start()
    assert second.wait_for(0) == ORDER
    assert not second.has(1)


def test_an_order_of_an_earlier_start_of_the_job_is_not_taken_for_a_new_one(task):
    task(0).give(0, ORDER)
    assert task(1).has(0)
    assert not task(1, restart=1).has(0)


def test_the_first_waits_until_all_have_ended_what_they_did(task):
    first, second = task(0), task(1)
    first.give(0, ORDER)
    first.report(0)
    began = time.monotonic()
    first.wait_for_all(0, seconds=0.6)
    assert time.monotonic() - began > 0.5  # the second has not, and is not waited for longer
    threading.Timer(0.2, second.report, (0,)).start()
    first.wait_for_all(0, seconds=60.0)
    assert time.monotonic() - began < 30.0


def test_what_trains_finds_its_place_and_its_group_in_the_environment(task):
    given = {"PATH": "/bin", "NCCL_SOCKET_IFNAME": "ib0", "RANK": "17"}
    environment = task(1).environment(ORDER, given)
    wanted = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    wanted |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "20001", "SLURM_JOB_END_TIME": "1800000000"}
    assert environment.items() >= wanted.items()
    assert environment["NCCL_SOCKET_IFNAME"] == "ib0"  # what the cluster's profile says has the last word
    assert environment["PATH"] == "/bin"
