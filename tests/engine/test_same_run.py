"""A run goes on with the images it was begun on, whatever file names them."""

import numpy as np
import pytest

from arvis_scale.config import DataConfig
from arvis_scale.config.data import SubsetConfig
from arvis_scale.data.build import build_shards
from arvis_scale.data.selection import select_images
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.same_run import check_same_images


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
