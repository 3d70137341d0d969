"""`arvis-scale train` from the URL of a shard folder: the run of the folder itself, and its faults by policy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arvis_scale.data.build import build_shards
from arvis_scale.engine.logs.metrics_log import read_metrics
from arvis_scale.engine.run_folder import RunFolder

pytestmark = pytest.mark.processes


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., RunFolder]:
    """Run the command on the shards at an address and return the run's folder."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def run(name: str, shards: str, *overrides: str) -> RunFolder:
        output = tmp_path / name
        settings = ["objective=xtra", "preset=pico", "samples_seen=320", "data.num_workers=2", *overrides]
        places = [f"name={name}", f"output={output}", f"data.shards={shards}", "probe_data.shards=null"]
        command = [sys.executable, "-m", "arvis_scale", "train", "digits", *settings, *places]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr
        return RunFolder(output)

    return run


def numbers_of(run: RunFolder) -> tuple[list[float], Any, Any]:
    losses = [line["loss"] for line in read_metrics(run.metrics) if line.get("loss") is not None]
    result = run.read_result()
    return losses, result["val_loss"], result["pretrain_data"]


def test_a_run_from_a_server_is_the_run_from_the_folder(
    tmp_path: Path, serve: Callable[[Path], str], train: Callable[..., RunFolder]
) -> None:
    folder = tmp_path / "served" / "digits"
    build_shards("digits", folder, samples_per_shard=250)
    url = serve(folder.parent) + "/digits"
    local, remote = train("local", str(folder)), train("remote", url)
    assert numbers_of(remote) == numbers_of(local)
    assert len(numbers_of(local)[0]) > 0
    (folder / "train-000002.tar").unlink()
    # Begins with the copied index, and meets the gap in the shard that it names.
    bare = train("bare", url, "data.on_bad_sample=skip", "data.num_read_retries=0")
    skipped = bare.read_result()["skipped_samples"]
    assert list(skipped) == ["missing_shard"]
    assert skipped["missing_shard"] > 20
    assert bare.read_result()["samples_seen"] == 320
    assert any(line.get("skipped_missing_shard") for line in read_metrics(bare.metrics))
