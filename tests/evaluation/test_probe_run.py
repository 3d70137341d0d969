"""Which layers are probed, and which of them counts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from arvis_scale.config import RunConfig, load_config
from arvis_scale.data.build import build_shards
from arvis_scale.evaluation.features import pooled_features
from arvis_scale.evaluation.probe_run import probe_encoder, probe_raw_pixels
from arvis_scale.models.build import build_objective
from arvis_scale.models.encoder import Backbone


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    build_shards("digits", folder)
    return folder


def run_config(shards: Path, objective: str, *overrides: str) -> RunConfig:
    given = ["name=a", "output=runs/a", f"objective={objective}", f"data.shards={shards}"]
    probe_data = [f"probe_data.shards={shards}", "probe_data.train_images=200"]
    return load_config("digits", [*given, *probe_data, "preset=micro", "igpt.resolution=8", *overrides])


def encoder_of(config: RunConfig) -> Backbone:
    torch.manual_seed(0)
    options = asdict(getattr(config, config.objective))
    return build_objective(config.objective, preset="micro", image_size=32, patch_size=8, options=options).encoder


@pytest.fixture(scope="module")
def igpt(shards: Path) -> dict[str, Any]:
    config = run_config(shards, "igpt")
    return probe_encoder(encoder_of(config), config, torch.device("cpu"))


def test_igpt_is_probed_after_every_layer_and_the_best_on_training_images_counts(igpt: dict[str, Any]) -> None:
    by_layer = igpt["linear_by_layer"]
    assert [result["layer"] for result in by_layer] == [1, 2, 3, 4]
    assert len({result["accuracy"] for result in by_layer}) > 1
    assert igpt["linear"] in by_layer
    assert igpt["linear"]["held_out_accuracy"] == max(result["held_out_accuracy"] for result in by_layer)


def test_other_objectives_are_probed_after_the_last_layer(shards: Path) -> None:
    config = run_config(shards, "mae")
    encoder = encoder_of(config)
    last = probe_encoder(encoder, config, torch.device("cpu"))
    assert list(last) == ["linear"] and last["linear"]["layer"] == 4
    every = probe_encoder(encoder, run_config(shards, "mae", "probe_data.every_layer=true"), torch.device("cpu"))
    assert every["linear"] == last["linear"] == every["linear_by_layer"][-1]
    assert [result["layer"] for result in every["linear_by_layer"]] == [1, 2, 3, 4]


def test_all_layers_come_from_one_forward_pass_and_their_own_norms(shards: Path) -> None:
    encoder = encoder_of(run_config(shards, "igpt")).eval()
    with torch.no_grad():
        for number, parameter in enumerate(encoder.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    images = torch.randn(3, 3, 32, 32)
    passes = []
    encoder.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    features = pooled_features(encoder, [1, 4])(images)  # B x L x D
    assert len(passes) == 1 and features.shape == (3, 2, 64)
    first, last = encoder.layer_outputs(images, [1, 4])
    torch.testing.assert_close(features[:, 0], encoder.blocks[1].norm1(first).mean(dim=1))
    torch.testing.assert_close(features[:, 1], encoder.norm(last).mean(dim=1))


def test_raw_pixels_have_one_layer(shards: Path) -> None:
    results = probe_raw_pixels(run_config(shards, "mae"))
    assert list(results) == ["linear"] and results["linear"]["num_features"] == 3 * 32**2
