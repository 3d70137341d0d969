"""A run goes on as it was begun: on the same images, whatever file names them."""

from dataclasses import replace

import numpy as np
import pytest

from arvis_scale.config import DataConfig, build_config, load_config, load_yaml, recipe_path, save_config
from arvis_scale.config.data import SubsetConfig
from arvis_scale.data.build import build_shards
from arvis_scale.data.selection import select_images
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.same_run import check_same_images, lasting


def test_an_edited_list_of_keys_is_another_run(tmp_path):
    build_shards("digits", tmp_path / "digits")
    keys = np.load(tmp_path / "digits" / "train.samples" / "key.npy").astype(str)
    manifest = tmp_path / "keys.txt"
    manifest.write_text("\n".join(keys[:20]))
    config = DataConfig(shards=str(tmp_path / "digits"), subset=SubsetConfig(manifest=str(manifest)))
    images = select_images(config, None)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    data = {"name": images.dataset.name, "hash": images.dataset.content_hash, "subset": images.subset.hash}
    folder.write_environment(1, "cpu", data)
    check_same_images(select_images(config, None), folder)
    manifest.write_text("\n".join(keys[1:20]))
    with pytest.raises(ValueError, match="another subset of its images"):
        check_same_images(select_images(config, None), folder)


def test_what_is_asked_of_one_start_does_not_stay_in_the_runs_configuration(tmp_path):
    folder = RunFolder(tmp_path)
    keys = {"name": "one", "output": str(tmp_path), "data.shards": "nowhere", "objective": "xtra"}
    begun = build_config(load_yaml(recipe_path("digits")), keys, "test")
    save_config(begun, folder.config)
    once = ["guards.time_limit_minutes=5", "log.metrics_every=1", "profile.steps=3", "guards.watchdog_minutes=3"]
    now = load_config(str(folder.config), once)
    assert lasting(now, folder) == replace(begun, guards=replace(begun.guards, watchdog_minutes=3.0))
