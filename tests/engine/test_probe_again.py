"""A completed run's encoder probed once more: what is kept in result.json, and what is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from arvis_scale.config import load_config, save_config
from arvis_scale.data.build import build_shards
from arvis_scale.engine.result import probe_again, write_imported_result
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.setup import encoder_of
from arvis_scale.engine.weights.export import save_encoder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    build_shards("digits", folder)
    return folder


@pytest.fixture
def run(tmp_path: Path, digits: Path) -> RunFolder:
    """An encoder with random weights, as a completed run leaves it."""
    places = [f"output={tmp_path / 'run'}", f"data.shards={digits}", f"probe_data.shards={digits}"]
    config = load_config("digits", ["name=a", "objective=mae", "preset=nano", "probe_data.train_images=200", *places])
    folder = RunFolder(config.output)
    save_config(config, folder.config)
    save_encoder(encoder_of(config).state_dict(), folder.encoder)
    write_imported_result(config, {}, {})
    return folder


def test_another_kind_of_probe_stands_beside_the_first(run: RunFolder) -> None:
    linear = probe_again(run.path)
    knn = probe_again(run.path, ["probe_data.kinds=[knn]", "probe_data.train_images=100"])
    assert list(linear) == ["linear"] and list(knn) == ["knn"]
    assert run.read_result()["probes"] == {**linear, **knn}
    assert knn["knn"]["num_train"] == 100 and knn["knn"]["accuracy"] > 0.3
    assert set(linear["linear"]) - {"l2"} == set(knn["knn"]) - {"num_neighbors"}


def test_a_probe_by_layer_does_not_outlive_its_own_kind(run: RunFolder) -> None:
    assert "linear_by_layer" in probe_again(run.path, ["probe_data.every_layer=true"])
    probe_again(run.path)
    assert list(run.read_result()["probes"]) == ["linear"]


def test_probes_of_other_images_replace_all(run: RunFolder, tmp_path: Path) -> None:
    probe_again(run.path)
    build_shards("digits", tmp_path / "others", seed=1)
    probe_again(run.path, ["probe_data.kinds=[knn]", f"probe_data.shards={tmp_path / 'others'}"])
    assert list(run.read_result()["probes"]) == ["knn"]


@pytest.mark.parametrize("kinds", ["[]", "[linear,linear]"])
def test_no_probe_and_the_same_twice_are_refused(run: RunFolder, kinds: str) -> None:
    with pytest.raises(ValueError, match="must name each probe once, and at least one"):
        probe_again(run.path, [f"probe_data.kinds={kinds}"])


def test_an_unknown_kind_is_refused_with_its_nearest_neighbor(run: RunFolder) -> None:
    with pytest.raises(ValueError, match="'atentive' is not known; did you mean 'attentive'"):
        probe_again(run.path, ["probe_data.kinds=[atentive]"])
