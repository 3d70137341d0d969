"""Shards of real images, and a run folder that probes and fine-tuning take for a completed run."""

from __future__ import annotations

from pathlib import Path

import pytest

from arvis_scale.config import load_config, save_config
from arvis_scale.data.build import build_shards
from arvis_scale.engine.result import write_imported_result
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.setup import encoder_of
from arvis_scale.engine.weights.export import save_encoder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of scikit-learn's digits, 1,000 to train on and 797 to test on. Read-only."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    build_shards("digits", folder)
    return folder


@pytest.fixture
def untrained_run(tmp_path: Path, digits: Path) -> RunFolder:
    """An encoder with random weights, as a completed run leaves it; probes are fitted on 600 images."""
    places = [f"output={tmp_path / 'run'}", f"data.shards={digits}", f"probe_data.shards={digits}"]
    config = load_config("digits", ["name=a", "objective=mae", "preset=nano", "probe_data.train_images=600", *places])
    folder = RunFolder(config.output)
    save_config(config, folder.config)
    save_encoder(encoder_of(config).state_dict(), folder.encoder)
    write_imported_result(config, {}, {})
    return folder
