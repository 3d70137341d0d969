"""A completed run's encoder probed once more: what is kept in result.json, and what is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from arvis_scale.atomic import write_json
from arvis_scale.data.build import build_shards
from arvis_scale.engine.result import probe_again
from arvis_scale.engine.run_folder import RunFolder


def test_another_kind_of_probe_stands_beside_the_first(untrained_run: RunFolder) -> None:
    linear = probe_again(untrained_run.path)
    knn = probe_again(untrained_run.path, ["probe_data.kinds=[knn]"])
    assert list(linear) == ["linear"] and list(knn) == ["knn"]
    assert untrained_run.read_result()["probes"] == {**linear, **knn}
    assert knn["knn"]["num_train"] == 600 and knn["knn"]["accuracy"] > 0.3
    assert set(linear["linear"]) - {"l2"} == set(knn["knn"]) - {"num_neighbors"}


def test_a_probe_by_layer_does_not_outlive_its_own_kind(untrained_run: RunFolder) -> None:
    assert "linear_by_layer" in probe_again(untrained_run.path, ["probe_data.every_layer=true"])
    probe_again(untrained_run.path)
    assert list(untrained_run.read_result()["probes"]) == ["linear"]


def test_probes_of_other_images_replace_all(untrained_run: RunFolder, tmp_path: Path) -> None:
    probe_again(untrained_run.path)
    build_shards("digits", tmp_path / "others", seed=1)
    probe_again(untrained_run.path, ["probe_data.kinds=[knn]", f"probe_data.shards={tmp_path / 'others'}"])
    assert list(untrained_run.read_result()["probes"]) == ["knn"]


@pytest.mark.parametrize(
    ("changed", "probe_images"),
    [
        ("train_images=100", {"train_split": "train", "test_split": "test", "train_images": 100}),
        ("train_split=test", {"train_split": "test", "test_split": "test", "train_images": 600}),
        ("test_split=train", {"train_split": "train", "test_split": "train", "train_images": 600}),
    ],
)
@pytest.mark.parametrize("is_old", [False, True])
def test_probes_of_other_images_of_the_same_shards_replace_all(
    untrained_run: RunFolder, changed: str, probe_images: dict[str, object], is_old: bool
) -> None:
    probe_again(untrained_run.path)
    if is_old:  # as written before the images were recorded
        result = untrained_run.read_result()
        del result["probe_images"]
        write_json(untrained_run.result, result)
    probe_again(untrained_run.path, ["probe_data.kinds=[knn]", f"probe_data.{changed}"])
    result = untrained_run.read_result()
    assert list(result["probes"]) == ["knn"] and result["probe_images"] == probe_images


def test_an_older_result_keeps_its_probes_of_the_same_images_alone(untrained_run: RunFolder) -> None:
    linear = probe_again(untrained_run.path)
    fewer = probe_again(untrained_run.path, ["probe_data.kinds=[knn]", "probe_data.train_images=100"])
    mixed = {**untrained_run.read_result(), "probes": {**linear, "attentive": fewer["knn"]}}
    del mixed["probe_images"]
    write_json(untrained_run.result, mixed)
    knn = probe_again(untrained_run.path, ["probe_data.kinds=[knn]"])
    assert untrained_run.read_result()["probes"] == {**linear, **knn}


def test_a_limit_above_the_split_is_no_other_choice_of_images(untrained_run: RunFolder) -> None:
    probe_again(untrained_run.path, ["probe_data.train_images=null"])
    probe_again(untrained_run.path, ["probe_data.kinds=[knn]", "probe_data.train_images=5000"])
    assert set(untrained_run.read_result()["probes"]) == {"linear", "knn"}


def test_too_few_images_are_refused_before_they_are_read(untrained_run: RunFolder) -> None:
    with pytest.raises(ValueError, match="probe_data.train_images=1: 1 images of 1 classes are too few"):
        probe_again(untrained_run.path, ["probe_data.train_images=1"])


@pytest.mark.parametrize("kinds", ["[]", "[linear,linear]"])
def test_no_probe_and_the_same_twice_are_refused(untrained_run: RunFolder, kinds: str) -> None:
    with pytest.raises(ValueError, match="must name each probe once, and at least one"):
        probe_again(untrained_run.path, [f"probe_data.kinds={kinds}"])


def test_an_unknown_kind_is_refused_with_its_nearest_neighbor(untrained_run: RunFolder) -> None:
    with pytest.raises(ValueError, match="'atentive' is not known; did you mean 'attentive'"):
        probe_again(untrained_run.path, ["probe_data.kinds=[atentive]"])
