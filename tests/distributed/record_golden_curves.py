"""Train every objective on digits and write its loss curve, one JSON file each.

    OMP_NUM_THREADS=1 python tests/distributed/record_golden_curves.py tests/distributed/golden_curves

`test_golden_curves.py` runs this into a folder of its own and compares with the committed files. Run as above it
replaces them: do so only where losses are meant to change, and say in the commit why they did.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from arvis_scale.atomic import write_json
from arvis_scale.config import OBJECTIVES, build_config, load_yaml, recipe_path
from arvis_scale.data.build import build_shards
from arvis_scale.engine.logs.metrics_log import read_metrics
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.train import train

NUM_STEPS = 300
# On top of the recipe `digits`. Small, so that five curves take seconds; stochastic depth, crops and several epochs, so
# that each of them is pinned. At this learning rate steps do not amplify rounding: curves of other processors are near.
CHANGES: dict[str, Any] = {
    "preset": "nano",
    "samples_seen": NUM_STEPS * 32,
    "global_batch_size": 32,
    "micro_batch_size": 32,
    "optimizer.learning_rate": 5e-4,
    "xtra.drop_path": 0.1,
    "teacher.kind": "pixels",
    "log.metrics_every": 1,
    "data.validation_images": 64,
    "checkpoints.every": 0,
}


def record(objective: str, shards: Path, run: Path, destination: Path) -> None:
    """Train `objective` in the folder `run` and write its curve to the file `destination`."""
    changes = {"name": objective, "objective": objective, "output": str(run), "data.shards": str(shards), **CHANGES}
    train(build_config(load_yaml(recipe_path("digits")), changes, "golden curves"))
    lines = read_metrics(RunFolder(run).metrics)
    curve = {
        "schema_version": 1,
        "objective": objective,
        "recorded_with": {"torch": torch.__version__, "cpu_capability": torch.backends.cpu.get_cpu_capability()},
        "changes": CHANGES,
        "val_loss": next(line["val_loss"] for line in reversed(lines) if "val_loss" in line),
        "loss": [line["loss"] for line in lines if "loss" in line],
    }
    assert len(curve["loss"]) == NUM_STEPS
    write_json(destination, curve)


def main() -> None:
    """Write the curve of every objective to the folder named on the command line."""
    destination = Path(sys.argv[1])
    destination.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        shards = Path(scratch) / "digits"
        build_shards("digits", shards)
        for objective in OBJECTIVES:
            record(objective, shards, Path(scratch) / objective, destination / f"{objective}.json")


if __name__ == "__main__":
    main()
