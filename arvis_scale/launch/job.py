"""What a submitted job does: one process of one or several runs, one after the other."""

from __future__ import annotations

import logging
import os
import traceback
from dataclasses import dataclass

from arvis_scale.config import load_config
from arvis_scale.engine.run_folder import RunFolder, Status


@dataclass(frozen=True)
class JobRun:
    """One run of a job: its kind (see `launch.study.PlannedRun`) and its folder, which holds its config.yaml."""

    kind: str
    folder: str


def run_job(runs: list[JobRun]) -> list[str]:
    """Do the runs in order and return their final states; called by every process of the job.

    A failing run is recorded in its folder and, when the job is one process, the next one goes on; with several
    processes the group is in an unknown state after a failure, so the job ends and the rest stay pending.
    """
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("arvis_scale").setLevel(logging.INFO)
    _export_process_environment()
    # Imported here: these bring torch and DeepSpeed, which read the environment set above.
    from arvis_scale.engine.distributed import launched_world_size
    from arvis_scale.engine.result import write_raw_pixel_reference
    from arvis_scale.engine.train import train

    states = []
    for run in runs:
        folder = RunFolder(run.folder)
        try:
            config = load_config(str(folder.config))
            if run.kind == "raw_pixels":
                write_raw_pixel_reference(config)
                folder.write_status(Status("completed", attempt=1))
                states.append("completed")
            else:
                states.append(train(config).state)
        except Exception as error:
            traceback.print_exc()
            if folder.status().state != "failed":
                folder.write_status(Status("failed", reason=" ".join(f"{type(error).__name__}: {error}".split())))
            if launched_world_size() not in (None, 1):
                raise
            states.append("failed")
        if states[-1] == "preempted":
            break
    return states


def _export_process_environment() -> None:
    """Set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT from submitit's job, before anything reads them."""
    from submitit.helpers import TorchDistributedEnvironment

    environment = TorchDistributedEnvironment()
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        # All processes are on this machine; its host name need not resolve, and nothing has to leave the loopback.
        environment.master_addr = "127.0.0.1"
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    environment.export(set_cuda_visible_devices=False, overwrite=True)
