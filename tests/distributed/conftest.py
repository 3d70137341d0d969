"""Real shards and real processes for the tests of this folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from arvis_scale.config import build_config, load_yaml, recipe_path, save_config
from arvis_scale.data.build import build_shards
from arvis_scale.engine.logs.metrics_log import read_metrics

# Twelve steps without warm-up, at a high learning rate, with stochastic depth and clipping that is active: nothing
# agrees by standing still.
EXACT = {
    "preset": "nano",
    "samples_seen": 12 * 32,
    "global_batch_size": 32,
    "micro_batch_size": 32,
    "unique_images": 100,
    "optimizer.warmup_fraction": 0.0,
    "optimizer.learning_rate": 1e-3,
    "optimizer.clip_grad_norm": 0.15,
    "xtra.drop_path": 0.1,
    "log.metrics_every": 1,
    "data.validation_images": 37,
}
TRAIN_SEVERAL = """
import sys
from arvis_scale.config import load_config
from arvis_scale.engine.train import train
for path in sys.argv[1:]:
    train(load_config(path))
"""


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digits"
    build_shards("digits", folder)
    return folder


@pytest.fixture(scope="session")
def environment():
    """One thread per process, and no launcher's variables."""
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def arvis_scale(environment):
    """Run the command line and return the finished process."""

    def run(*arguments, **options):
        command = [sys.executable, "-m", "arvis_scale", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **options)

    return run


@pytest.fixture(scope="session")
def write_run(digits):
    """Write the configuration of a short run in `folder`, with `changes` of it, and return its path."""

    def write(folder, **changes):
        values = {"name": folder.name, "output": str(folder), "data.shards": str(digits), **EXACT, **changes}
        config = build_config(load_yaml(recipe_path("digits")), values, "test")
        save_config(config, folder / "config.yaml")
        return str(folder / "config.yaml")

    return write


@pytest.fixture(scope="session")
def train_together(environment):
    """Train several configurations in one start of `num_processes`; a start costs more than a short run."""

    def train(paths, num_processes, script=None):
        if script is None:
            script = Path(paths[0]).parent / "train_several.py"
            script.write_text(TRAIN_SEVERAL)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
        finished = subprocess.run(
            [*command, str(script), *paths], env=environment, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stderr[-3000:]

    return train


@pytest.fixture(scope="session")
def curve():
    """Return a function of (run folder, key): what the run's metrics.jsonl holds under it."""

    def read(folder, key):
        return torch.tensor([line[key] for line in read_metrics(folder / "metrics.jsonl") if key in line])

    return read
