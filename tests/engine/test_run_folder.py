"""A status survives what a crash leaves behind."""

import time

import pytest

from arvis_scale.engine.heartbeat import recorded_status
from arvis_scale.engine.run_folder import STALE_AFTER_SECONDS, RunFolder, Status


def test_folder_without_status_is_pending(tmp_path):
    assert RunFolder(tmp_path).status().state == "pending"


def test_running_status_without_heartbeat_is_not_alive(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_status(Status("running"))
    status = folder.status()
    assert status.is_alive
    status.heartbeat = time.time() - STALE_AFTER_SECONDS - 1
    assert not status.is_alive


def test_failure_is_recorded_with_its_reason_and_attempts_are_counted(tmp_path):
    folder = RunFolder(tmp_path)
    for _ in range(2):
        status = folder.status().next_attempt(num_steps=5)
        with pytest.raises(ValueError), recorded_status(folder, status, is_first=True):
            status.step = 3
            raise ValueError("the loss is nan")
    status = folder.status()
    assert (status.state, status.step, status.attempt) == ("failed", 3, 2)
    assert status.reason == "ValueError: the loss is nan"


def test_the_first_failure_of_several_processes_is_kept(tmp_path):
    folder = RunFolder(tmp_path)
    first, second = (folder.status().next_attempt(num_steps=5) for _ in range(2))
    with pytest.raises(ValueError), recorded_status(folder, first, is_first=True):
        with pytest.raises(MemoryError), recorded_status(folder, second, is_first=False):
            raise MemoryError("the cause")
        raise ValueError("connection closed by peer")
    assert folder.status().reason == "MemoryError: the cause"


def test_the_heartbeat_of_a_process_that_hangs_leaves_the_failure_of_another(tmp_path):
    folder = RunFolder(tmp_path)
    first, second = (folder.status().next_attempt(num_steps=5) for _ in range(2))
    with recorded_status(folder, first, is_first=True, interval=0.01):
        time.sleep(0.1)
        assert folder.status().state == "running"
        with pytest.raises(MemoryError), recorded_status(folder, second, is_first=False):
            raise MemoryError("the cause")
        time.sleep(0.1)
        assert folder.status().reason == "MemoryError: the cause"
        first.state = "failed"  # as it would be when the hanging process is killed at last
