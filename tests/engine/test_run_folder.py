"""A status survives what a crash leaves behind."""

import json
import time
from dataclasses import replace

import pytest

from arvis_scale.engine.heartbeat import recorded_status
from arvis_scale.engine.run_folder import MAX_ENDS, STALE_AFTER_SECONDS, RunFolder, Status


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


def test_a_status_of_before_it_knew_of_jobs_is_read(tmp_path):
    folder = RunFolder(tmp_path)
    old = {"state": "failed", "attempt": 2, "step": 3, "num_steps": 5, "heartbeat": 1.0, "host": "a", "reason": "why"}
    folder.status_file.write_text(json.dumps({**old, "exit_status": 1, "schema_version": 1}))
    begun = folder.status().next_attempt(num_steps=5)
    folder.write_status(begun)
    status = folder.status()
    assert (status.attempt, status.last_reason) == (3, "why")
    assert [(end.attempt, end.state, end.step) for end in status.ends] == [(2, "failed", 3)]


def test_device_seconds_are_those_of_all_devices_in_all_starts(tmp_path):
    folder = RunFolder(tmp_path)
    for _ in range(2):
        status = folder.status().next_attempt(num_steps=5, num_devices=4)
        with recorded_status(folder, status, is_first=True):
            time.sleep(0.05)
            status.state = "preempted"
    assert folder.status().device_seconds >= 2 * 4 * 0.05


def test_a_process_of_an_earlier_start_does_not_speak_for_a_later_one(tmp_path):
    folder = RunFolder(tmp_path)
    earlier = folder.status().next_attempt(num_steps=5)
    folder.write_status(earlier)
    folder.write_status(folder.status().next_attempt(num_steps=5))
    with pytest.raises(RuntimeError), recorded_status(folder, earlier, is_first=False):
        raise RuntimeError("connection closed by peer")
    assert (folder.status().state, folder.status().attempt) == ("running", 2)


def test_nor_does_one_that_completes_at_last(tmp_path):
    folder = RunFolder(tmp_path)
    earlier = folder.status().next_attempt(num_steps=5)
    with recorded_status(folder, earlier, is_first=True):
        folder.write_status(folder.status().next_attempt(num_steps=5))
        earlier.state = "completed"
    assert (folder.status().state, folder.status().attempt) == ("running", 2)


def test_what_the_others_see_of_a_process_that_was_stopped_does_not_hide_why(tmp_path):
    folder = RunFolder(tmp_path)
    status = folder.status().next_attempt(num_steps=5)
    folder.write_status(replace(status, state="preempted", reason="time limit"))
    with pytest.raises(RuntimeError), recorded_status(folder, status, is_first=False):
        raise RuntimeError("connection closed by peer")
    assert (folder.status().state, folder.status().reason) == ("preempted", "time limit")


def test_only_the_last_ends_are_kept(tmp_path):
    status = Status("pending")
    for _ in range(MAX_ENDS + 5):
        status = status.next_attempt(num_steps=5)
        status.state = "preempted"
    assert len(status.ends) == MAX_ENDS
    assert status.ends[-1].attempt == MAX_ENDS + 4
