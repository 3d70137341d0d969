"""A real DeepSpeed run leaves a complete folder, and after a kill and a signal ends as if undisturbed."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from arvis_scale.engine.run_folder import RunFolder

pytestmark = pytest.mark.processes


def test_run_folder_is_complete(tmp_path, write_run, train_together):
    changes = {"objective": "xtra", "parallel.processes": 2, "parallel.strategy": "zero3", "micro_batch_size": 16}
    train_together([write_run(tmp_path / "run", **changes)], 2)
    folder = RunFolder(tmp_path / "run")
    assert folder.status().state == "completed"
    result = folder.read_result()
    assert result["unique_images"] == 100
    assert result["samples_seen"] == 384
    assert result["world_size"] == 2
    assert result["params_encoder"] == sum(v.numel() for v in load_file(folder.encoder).values())
    assert result["train_flops"] > 6 * result["params_encoder"] * result["samples_seen"]
    environment = json.loads(folder.environment.read_text())
    assert environment["packages"]["deepspeed"] != "not installed"
    assert list(folder.tensorboard.iterdir())


def test_killed_and_started_again_a_run_ends_with_the_same_weights(
    tmp_path, write_run, curve, environment, arvis_scale
):
    changes = {"objective": "xtra", "samples_seen": 100 * 32, "checkpoints.every": 5}
    undisturbed = write_run(tmp_path / "undisturbed", **changes)
    assert arvis_scale("train", undisturbed).returncode == 0

    killed = write_run(tmp_path / "killed", **changes)
    process = subprocess.Popen([sys.executable, "-m", "arvis_scale", "train", killed], env=environment)
    wait_for(lambda: (tmp_path / "killed" / "checkpoints" / "step_00000010").exists())
    process.kill()
    process.wait()
    assert RunFolder(tmp_path / "killed").status().state == "running"
    checkpoints = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").glob("step_*"))
    assert checkpoints and checkpoints[-1] < "step_00000100"

    again = subprocess.Popen([sys.executable, "-m", "arvis_scale", "train", killed], env=environment)
    started_at = int(checkpoints[-1][-8:])
    wait_for(lambda: (tmp_path / "killed" / "checkpoints" / f"step_{started_at + 5:08d}").exists())
    again.send_signal(signal.SIGTERM)
    assert again.wait() == 75
    status = RunFolder(tmp_path / "killed").status()
    assert (status.state, status.reason) == ("preempted", "SIGTERM")
    assert (tmp_path / "killed" / "checkpoints" / f"step_{status.step:08d}").is_dir()

    assert arvis_scale("train", killed).returncode == 0
    expected = load_file(tmp_path / "undisturbed" / "encoder.safetensors")
    for key, value in load_file(tmp_path / "killed" / "encoder.safetensors").items():
        assert torch.equal(value, expected[key]), key
    assert torch.equal(curve(tmp_path / "killed", "loss"), curve(tmp_path / "undisturbed", "loss"))
    assert RunFolder(tmp_path / "killed").status().attempt == 3


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_samples_that_cannot_be_used_are_counted_and_the_run_goes_on(tmp_path, digits, write_run, train_together):
    shards = tmp_path / "shards"
    shutil.copytree(digits, shards)
    offsets = np.load(shards / "train.samples" / "offset.npy")
    with open(shards / "train-000000.tar", "r+b") as tar:
        for sample in (3, 500, 900):
            tar.seek(int(offsets[sample]))
            tar.write(b"no image")
    changes = {
        "objective": "xtra",
        "preset": "pico",
        "data.shards": str(shards),
        "data.on_bad_sample": "skip",
        "unique_images": None,
        "samples_seen": 1000,
        "global_batch_size": 100,
        "micro_batch_size": 50,
        "parallel.processes": 2,
    }
    of_pixels = {**changes, "objective": "igpt", "igpt.resolution": 8}
    train_together([write_run(tmp_path / "run", **changes), write_run(tmp_path / "igpt", **of_pixels)], 2)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    counts = [json.loads(line).get("skipped_not_an_image", 0) for line in lines if "lr" in line]
    assert counts == sorted(counts) and counts[-1] == 3
    assert RunFolder(tmp_path / "run").read_result()["skipped_samples"] == {"not_an_image": 3}
    # Its palette is of all of these images: met there, and in training.
    assert RunFolder(tmp_path / "igpt").read_result()["skipped_samples"] == {"not_an_image": 6}
