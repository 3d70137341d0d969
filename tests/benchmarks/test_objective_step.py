"""The plain formulations compute what ours do, and the benchmark that measures against them runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from arvis_scale.models.build import OBJECTIVES, build_objective, objective_arguments
from arvis_scale.models.igpt import Igpt

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPES: dict[str, dict[str, Any]] = {
    "xtra": {"options": {"block_side": 2, "drop_path": 0.0}},
    "aim": {},
    "digpt": {"options": {"segment_side": 3}, "teacher_width": 20, "teacher_grid": 8},
    "igpt": {"options": {"resolution": 8, "palette_size": 32}},
    "mae": {},
}


@pytest.fixture
def plain_objectives(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import plain_objectives

    return plain_objectives


def test_every_objective_has_a_plain_formulation(plain_objectives: ModuleType) -> None:
    assert set(plain_objectives.PLAIN) == set(OBJECTIVES) == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_loss_and_gradients_of_the_plain_formulation_are_ours(name: str, plain_objectives: ModuleType) -> None:
    torch.manual_seed(0)
    shape = {"preset": "nano", "image_size": 24, "patch_size": 4, **SHAPES[name]}
    ours = build_objective(name, **shape)
    plain = plain_objectives.PLAIN[name](SimpleNamespace(**objective_arguments(name, **shape)))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    weights = ours.state_dict()
    plain.load_state_dict({key: weights[key] for key in plain.state_dict()})
    batch = {
        "images": torch.randn(3, 3, 24, 24),
        "sample_seeds": torch.arange(3),
        "prefix_length": torch.tensor([1, 7, 35]),
        "segment_order": torch.stack([torch.randperm(4) for _ in range(3)]),
        "teacher_tokens": torch.randn(3, 65, 20),
        "visible_patches": torch.stack([torch.randperm(36)[:9] for _ in range(3)]),
    }
    if isinstance(ours, Igpt):
        batch["colors"] = ours.encoder.quantize(batch["images"])
    expected = plain(batch)
    loss, _ = ours(batch)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    gradients = {key: parameter.grad for key, parameter in ours.named_parameters()}
    assert gradients.keys() == dict(plain.named_parameters()).keys()
    for key, parameter in plain.named_parameters():
        torch.testing.assert_close(gradients[key], parameter.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.processes
def test_the_benchmark_writes_what_it_measured(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARKS / "objective_step.py"), "--quick", "--objectives", "mae"]
    finished = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    result = json.loads(output.read_text())
    [row], [encoder] = result["objectives"], result["encoders"]
    assert row["objective"] == "mae" and row["speed_ratio"] > 0 and encoder["speed_ratio"] > 0
    # A process that has imported torch holds more than 100 MB, and these models are small.
    assert 1e8 < row["ours_peak_bytes"] < 4e9 and 1e8 < row["plain_peak_bytes"] < 4e9
