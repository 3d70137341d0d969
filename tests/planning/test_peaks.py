"""A peak belongs to exactly the device that is named, and a processor's is measured without touching the run."""

import time

import pytest
import torch

from arvis_scale.planning.peaks import data_sheet_peak, device_peak, measured_cpu_peak


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("Tesla V100-SXM2-32GB", None, 15.7),
        ("Tesla V100-PCIE-16GB", None, 14.0),
        ("NVIDIA A100-SXM4-80GB", 312.0, 19.5),
        ("A100-SXM4-40GB", 312.0, 19.5),
        ("NVIDIA A100-PCIE-40GB", 312.0, 19.5),
        ("NVIDIA A100 80GB PCIe", 312.0, 19.5),
        ("NVIDIA A10", 125.0, 31.2),
        ("NVIDIA L4", 121.0, 30.3),
        ("NVIDIA L40S", 362.0, 91.6),
        ("NVIDIA GeForce RTX 3090", 71.0, 35.6),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
        ("NVIDIA H100 80GB HBM3", 989.5, 67.0),
        ("NVIDIA H100 PCIe", 756.5, 51.0),
        ("NVIDIA H100 NVL", 835.5, 60.0),
        ("NVIDIA H200", 989.5, 67.0),
        ("NVIDIA H200 NVL", 835.5, 60.0),
        ("NVIDIA GH200 480GB", 989.5, 67.0),
        ("NVIDIA GH200 144G HBM3e", 989.5, 67.0),
        ("NVIDIA B200", 2250.0, 75.0),
        ("AMD Instinct MI250X", 191.5, 47.9),
        ("AMD Instinct MI300X", 1307.4, 163.4),
    ],
)
def test_each_board_has_the_peak_of_its_own_data_sheet(name, bf16, fp32):
    assert data_sheet_peak(name) == (bf16, fp32)


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA A10G",
        "NVIDIA A100-SXM-64GB",
        "NVIDIA A40",
        "NVIDIA L40",
        "NVIDIA H20",
        "NVIDIA H800",
        "NVIDIA H100 80GB HBM2e",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GB200",
        "AMD Instinct MI250",
        "AMD Instinct MI300A",
        "",
    ],
)
def test_a_board_that_only_resembles_a_known_one_has_no_peak(name):
    assert data_sheet_peak(name) is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_processor_is_measured_in_tflops_and_once(precision):
    peak = device_peak(torch.device("cpu"), precision)
    matrix = torch.ones(1024, 1024, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    seconds = [product_seconds(matrix) for _ in range(10)]
    # Ten times: other programs come and go between the two measurements.
    assert 0.1 < peak / (2 * 1024**3 / min(seconds) / 1e12) < 10
    started = time.perf_counter()
    assert device_peak(torch.device("cpu"), precision) == peak
    assert time.perf_counter() - started < 0.1


def product_seconds(matrix):
    started = time.perf_counter()
    torch.mm(matrix, matrix)
    return time.perf_counter() - started


def test_measuring_draws_nothing_from_the_run_s_generators():
    before = torch.random.get_rng_state()
    measured_cpu_peak.__wrapped__("fp32", torch.get_num_threads())
    assert torch.equal(torch.random.get_rng_state(), before)
