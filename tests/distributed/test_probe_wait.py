"""The first process probes alone; the others wait for as long as it takes, and end with it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arvis_scale.engine.ports import free_port
from arvis_scale.engine.run_folder import RunFolder

pytestmark = pytest.mark.processes

SHORT = {
    "objective": "mae",
    "parallel.processes": 2,
    "micro_batch_size": 16,
    "samples_seen": 32,
    "checkpoints.background": True,
}


@pytest.fixture
def start_ranks(environment):
    """Start two ranks that train a run with a fault in its probe; whatever is left of them is killed at the end."""
    started = []

    def start(*arguments):
        shared = {**environment, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        script = Path(__file__).parent / "wait_for_probe.py"
        started.extend(
            subprocess.Popen(
                [sys.executable, str(script), *map(str, arguments)],
                env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        )
        return started

    yield start
    for rank in started:
        rank.kill()
        rank.communicate()


def test_a_probe_may_take_longer_than_processes_wait_for_each_other(tmp_path, digits, write_run, start_ranks):
    probed = write_run(tmp_path / "probed", **SHORT, **{"probe_data.shards": str(digits)})
    ranks = start_ranks("slow", probed)
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "".join(text[-2000:] for text in said)
    assert RunFolder(tmp_path / "probed").status().state == "completed"
    assert "linear" in RunFolder(tmp_path / "probed").read_result()["probes"]


def test_when_the_first_process_dies_in_its_probe_the_others_end_at_once(tmp_path, digits, write_run, start_ranks):
    probed = write_run(tmp_path / "probed", **SHORT, **{"probe_data.shards": str(digits)})
    first, other = start_ranks("killed", probed)
    assert "probing" in first.communicate(timeout=120)[0]
    began = time.monotonic()
    other.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert first.returncode == -signal.SIGKILL and other.returncode == 1
    assert RunFolder(tmp_path / "probed").status().state == "failed"
