"""Status and metrics survive what a crash leaves behind."""

import time

import pytest

from arvis_scale.engine.heartbeat import recorded_status
from arvis_scale.engine.metrics import MetricsLog, read_metrics
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


def test_cut_last_line_of_metrics_is_left_out_and_another_bad_line_is_named(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_metrics(file) == [{"step": 1, "loss": 2.0}]
    file.write_text('{"step": 1, "lo\n{"step": 2, "loss": 2.0}\n')
    with pytest.raises(ValueError, match="metrics.jsonl line 1"):
        read_metrics(file)


def test_resuming_drops_the_lines_after_the_checkpoint(tmp_path):
    folder = RunFolder(tmp_path)
    with MetricsLog(folder, step=0, num_steps=3, is_first=True) as log:
        for step in (1, 2, 3):
            log.scalars(step, {"loss": float(step)})
    with MetricsLog(folder, step=2, num_steps=3, is_first=True) as log:
        log.scalars(3, {"loss": float("inf")})
    assert [(line["step"], line["loss"]) for line in read_metrics(folder.metrics)] == [(1, 1.0), (2, 2.0), (3, None)]


def test_the_validation_after_the_last_step_stands_in_the_file_once(tmp_path):
    folder = RunFolder(tmp_path)
    for _ in range(2):
        with MetricsLog(folder, step=3, num_steps=3, is_first=True) as log:
            log.scalars(3, {"val_loss": 0.5})
    assert read_metrics(folder.metrics) == [{"step": 3, "val_loss": 0.5}]
