"""Folders of trained teachers are there whole or not at all: a script goes by whether they exist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arvis_scale.engine.weights.train_teachers import train_clip_on_shards, train_vq_on_shards
from arvis_scale.models.teachers.vq_model import VqSize


def train_clip(digits: Path, destination: Path) -> Path:
    return train_clip_on_shards(
        digits, destination, image_size=8, patch_size=4, width=16, depth=1, samples_seen=40
    ).folder


def train_vq(digits: Path, destination: Path) -> Path:
    size = VqSize(image_size=8, patch_size=4, num_codes=4, code_width=4, width=8, depth=1)
    return train_vq_on_shards(digits, destination, size=size, samples_seen=64).folder


@pytest.mark.parametrize("write", [train_clip, train_vq])
def test_an_interrupted_folder_is_not_there_and_can_be_written_again(
    tmp_path: Path, digits: Path, write: Callable[[Path, Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    destination = tmp_path / "weights" / "one"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", interrupted)  # the weights are written by then, their configuration is not
        with pytest.raises(KeyboardInterrupt):
            write(digits, destination)
    assert list(destination.parent.iterdir()) == []
    assert write(digits, destination) == destination
    assert len(list(destination.iterdir())) == 2
