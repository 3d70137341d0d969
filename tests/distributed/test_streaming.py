"""Training from shards without an index: it runs, goes on after a signal, and says what it does not promise."""

import json
import signal
import subprocess
import sys
import time

import pytest

from arvis_scale.data.build import build_shards
from arvis_scale.engine.run_folder import RunFolder

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """Keys of a run that streams four shards and validates on indexed ones."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    build_shards("digits", folder, samples_per_shard=250)
    return {
        "objective": "xtra",
        "preset": "pico",
        "data.shards": str(folder / "train-{000000..000003}.tar"),
        "data.streaming": True,
        "data.validation_shards": str(folder),
        "data.num_workers": 1,
        "unique_images": None,
    }


def test_a_streamed_run_of_two_processes_says_what_it_does_not_promise(tmp_path, streamed, write_run, train_together):
    changes = {"parallel.processes": 2, "micro_batch_size": 8, "parallel.strategy": "zero3"}
    bare = {**streamed, "data.validation_shards": None, "data.validation_images": None}
    paths = [write_run(tmp_path / "run", **streamed, **changes), write_run(tmp_path / "bare", **bare, **changes)]
    train_together(paths, 2)
    results = [RunFolder(tmp_path / name).read_result() for name in ("run", "bare")]
    for result in results:
        assert result["samples_seen"] == 384
        assert result["unique_images"] is None and result["repetitions"] is None
        assert result["subset"]["name"] == "stream-of-4-shards"
    assert results[0]["val_loss"] > 0 and results[1]["val_loss"] is None
    order = json.loads((tmp_path / "run" / "environment.json").read_text())["pretrain_data"]["order"]
    assert "begins the stream anew" in order and "need not see every image once" in order


def test_a_streamed_run_goes_on_after_a_signal(tmp_path, streamed, write_run, environment, arvis_scale):
    path = write_run(tmp_path / "run", **streamed, **{"samples_seen": 200 * 32, "checkpoints.every": 5})
    process = subprocess.Popen([sys.executable, "-m", "arvis_scale", "train", path], env=environment)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "step_00000005").exists():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    again = arvis_scale("train", path)
    assert again.returncode == 0, again.stderr
    assert "begins the stream anew" in again.stderr
    assert RunFolder(tmp_path / "run").read_result()["samples_seen"] == 6400
