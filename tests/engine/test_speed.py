"""Speeds follow from the counted seconds."""

import time

import pytest
import torch

from arvis_scale.config import load_config
from arvis_scale.engine.logs.speed import Speedometer
from arvis_scale.planning.peaks import device_peak

CPU = torch.device("cpu")


@pytest.fixture
def speed():
    given = ["name=a", "output=b", "objective=xtra", "data.shards=c", "parallel.processes=2", "micro_batch_size=32"]
    return Speedometer(load_config("digits", given), flops_per_sample=1e9, device=CPU)


def test_speeds_are_means_over_the_steps_since_the_last_reading(speed):
    speed.count_step(30.0)
    speed.read()
    speed.count_step(1.5)
    speed.count_step(0.5)
    speed.count_checkpoint(0.25)
    speed.count_checkpoint(0.5)
    read = speed.read()
    assert read["seconds_per_step"] == 1.0
    assert read["images_per_second"] == 64.0
    assert read["images_per_second_per_device"] == 32.0
    assert read["tflops_per_device"] == pytest.approx(0.032, rel=1e-12)
    assert read["mfu"] == pytest.approx(0.032 / device_peak(CPU, "fp32"), rel=1e-12)
    assert read["checkpoint_seconds"] == 0.75
    speed.count_step(1.0)
    assert speed.read()["checkpoint_seconds"] == 0.0


def test_waiting_is_a_fraction_of_the_steps(speed):
    for _ in range(2):
        with speed.waiting_for_data():
            time.sleep(0.05)
    speed.count_step(0.2)
    assert 0.5 <= speed.read()["data_wait_fraction"] < 0.9  # a busy machine sleeps longer, not shorter


def test_peak_memory_holds_what_the_process_held(speed):
    held = torch.ones(50_000_000 // 4)  # 50 MB, written to
    speed.count_step(1.0)
    read = speed.read()
    assert read["memory_bytes"] > held.nbytes
    assert read["memory_reserved_bytes"] is None
    del held
    speed.count_step(1.0)
    assert speed.read()["memory_bytes"] >= read["memory_bytes"]
