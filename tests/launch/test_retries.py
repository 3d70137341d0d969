"""What becomes of a run after a start: bounded tries, half the micro batch once, and failures that are its own."""

import pytest
import yaml

from arvis_scale.config import load_config
from arvis_scale.engine.exit_status import BAD_INPUT, FAILED, HANGING, OUT_OF_MEMORY, PREEMPTED, STOPPED_BY_GUARD
from arvis_scale.engine.out_of_memory import fitted
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.launch.jobs.retries import Next, after_start, may_be_the_nodes

CONFIG = {
    "schema_version": 1,
    "name": "one",
    "objective": "xtra",
    "samples_seen": 640,
    "global_batch_size": 64,
    "micro_batch_size": 32,
    "parallel": {"processes": 2},
    "data": {"shards": "nowhere"},
}


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def start(folder, state, exit_status, *, step=0):
    """Let one start of the run begin from its newest checkpoint and end, and leave a checkpoint of `step`."""
    steps = [int(path.name[5:]) for path in folder.checkpoints.glob("step_*")]
    status = folder.status().next_attempt(10, begun_from=max(steps, default=0))
    status.state, status.exit_status, status.reason = state, exit_status, f"start {status.attempt}"
    folder.write_status(status)
    if step:
        (folder.checkpoints / f"step_{step:08d}").mkdir(parents=True)


@pytest.mark.parametrize(
    ("state", "exit_status", "expected"),
    [
        ("completed", 0, Next.NOTHING),
        ("failed", BAD_INPUT, Next.NOTHING),
        ("failed", STOPPED_BY_GUARD, Next.NOTHING),
        ("failed", FAILED, Next.REQUEUED),
        ("failed", HANGING, Next.REQUEUED),
        ("preempted", PREEMPTED, Next.REQUEUED),
        ("running", None, Next.REQUEUED),
    ],
)
def test_what_is_next_after_one_start(folder, state, exit_status, expected):
    start(folder, state, exit_status)
    assert after_start(folder, 3) == (expected, folder.status())


def test_a_run_that_was_not_reached_is_started_here(folder):
    folder.write_status(Status("pending"))
    assert after_start(folder, 3)[0] is Next.HERE


@pytest.mark.parametrize("state", ["failed", "preempted", "running"])
def test_a_run_is_given_up_after_so_many_starts_without_a_new_checkpoint(folder, state):
    for number in range(3):
        assert number == 0 or after_start(folder, 3)[0] is Next.REQUEUED
        start(folder, state, FAILED if state == "failed" else None)
    what_next, status = after_start(folder, 3)
    assert (what_next, status.state, status.exit_status) == (Next.NOTHING, "failed", FAILED)
    assert status.reason == "given up: 3 starts without a new checkpoint; the last: start 3"
    folder.write_status(status)
    assert after_start(folder, 3) == (Next.NOTHING, status)


def test_starts_that_left_a_checkpoint_are_not_counted(folder):
    start(folder, "failed", FAILED)
    start(folder, "preempted", PREEMPTED, step=4)
    start(folder, "preempted", PREEMPTED, step=8)
    start(folder, "failed", FAILED)
    start(folder, "failed", FAILED)
    assert after_start(folder, 3)[0] is Next.REQUEUED
    start(folder, "failed", FAILED)
    assert after_start(folder, 3)[0] is Next.NOTHING


def test_the_ends_of_all_starts_are_kept_and_somebody_who_asks_again_gets_all_tries(folder):
    for _ in range(3):
        start(folder, "failed", FAILED)
    folder.write_status(folder.status().pending(10))
    status = folder.status()
    assert [end.reason for end in status.ends] == ["start 1", "start 2", "start 3"]
    assert (status.attempt, status.last_reason) == (3, "start 3")
    start(folder, "failed", FAILED)
    assert after_start(folder, 3)[0] is Next.REQUEUED


def test_out_of_memory_halves_the_micro_batch_once(folder):
    folder.config.write_text(yaml.safe_dump({**CONFIG, "output": str(folder.path), "micro_batch_size": 16}))
    start(folder, "failed", OUT_OF_MEMORY)
    what_next, status = after_start(folder, 3)
    assert (what_next, status.out_of_memory_at) == (Next.HERE, 16)
    assert status.last_reason == "start 1; goes on with micro_batch_size=8 in place of 16"
    folder.write_status(status)
    assert after_start(folder, 3) == (Next.HERE, status)  # in another job, where this one had to leave before
    start(folder, "failed", OUT_OF_MEMORY)
    what_next, status = after_start(folder, 3)
    assert (what_next, status.state) == (Next.NOTHING, "failed")
    assert "given up: out of memory with half the micro batch, 8, too" in status.reason


@pytest.mark.parametrize(
    ("micro", "out_of_memory_at", "expected"), [(16, None, 16), (16, 16, 8), (32, 16, 8), (8, 16, 8), (4, 16, 4)]
)
def test_later_starts_take_half_of_what_did_not_fit_or_less(tmp_path, micro, out_of_memory_at, expected):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "output": str(tmp_path), "micro_batch_size": micro}))
    config = fitted(load_config(str(path)), out_of_memory_at)
    config.validate()
    assert (config.micro_batch_size, config.global_batch_size) == (expected, 64)


def test_a_micro_batch_of_one_cannot_be_halved(folder):
    folder.config.write_text(yaml.safe_dump({**CONFIG, "output": str(folder.path), "micro_batch_size": 1}))
    start(folder, "failed", OUT_OF_MEMORY)
    what_next, status = after_start(folder, 3)
    assert (what_next, status.state) == (Next.NOTHING, "failed")
    assert "cannot be halved" in status.reason


@pytest.mark.parametrize(
    ("state", "exit_status", "reason", "expected"),
    [
        ("failed", FAILED, "RuntimeError: CUDA error: uncorrectable ECC error encountered", True),
        ("failed", HANGING, "no progress for 20 minutes", True),
        ("failed", FAILED, "RuntimeError: Connection reset by peer", False),
        ("failed", FAILED, "DistNetworkError: got 0 bytes. Connection was likely closed. Did the remote", False),
        ("failed", FAILED, "DistBackendError: NCCL error: remote process exited or there was a network error", False),
        ("failed", FAILED, "DistBackendError: Last error: Net : Connection closed by remote peer node2", False),
        ("failed", FAILED, "the process of rank 3 on node1 was ended by SIGSEGV", True),
        ("failed", BAD_INPUT, "ValueError: no such shards", False),
        ("failed", STOPPED_BY_GUARD, "loss spike", False),
        ("failed", OUT_OF_MEMORY, "OutOfMemoryError: CUDA out of memory", False),
        ("preempted", PREEMPTED, "SIGTERM", False),
    ],
)
def test_nodes_are_blamed_for_what_a_node_can_bring_about(state, exit_status, reason, expected):
    assert may_be_the_nodes(Status(state, exit_status=exit_status, reason=reason)) is expected


@pytest.mark.parametrize(("num_devices", "expected"), [(1, True), (16, False)])
def test_an_abort_is_held_against_a_node_only_where_no_watchdog_of_a_group_can_have_caused_it(num_devices, expected):
    reason = "the process of rank 0 on node1 was ended by SIGABRT"
    assert may_be_the_nodes(Status("failed", exit_status=FAILED, reason=reason, num_devices=num_devices)) is expected
