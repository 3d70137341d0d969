"""Starts the processes of one run from the command line, where no launcher has done so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from arvis_scale.config import RunConfig, save_config
from arvis_scale.engine.run_folder import RunFolder, Status


def train_here(config: RunConfig) -> Status:
    """Train a run: in this process, or under torchrun when it wants several and none were launched.

    Raises `ValueError` for a run that cannot be trained, before any process starts.
    """
    if "WORLD_SIZE" in os.environ or config.parallel.processes == 1:
        from arvis_scale.engine.train import train

        return train(config)
    from arvis_scale.engine.setup import check_run

    check_run(config)
    folder = RunFolder(config.output)
    save_config(config, folder.config)
    _torchrun(config.parallel.processes, folder.config)
    return folder.status()


def _torchrun(num_processes: int, config_file: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_processes)))
    subprocess.run([*command, "-m", "arvis_scale", "train", str(config_file)], env=environment, check=False)
