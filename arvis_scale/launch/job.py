"""What a submitted job does: one process of one or several runs, one after the other."""

from __future__ import annotations

import logging
import os
import traceback
from dataclasses import dataclass

from arvis_scale.config import RunConfig, load_config
from arvis_scale.engine.preemption import PreemptionFlag
from arvis_scale.engine.run_folder import RunFolder


@dataclass(frozen=True)
class JobRun:
    """One run of a job: its kind (see `launch.expansion.PlannedRun`) and its folder, which holds its config.yaml."""

    kind: str
    folder: str


def run_job(runs: list[JobRun]) -> list[str]:
    """Do the runs in order and return their final states; called by every process of the job.

    A failing run is recorded in its folder and, when the job is one process, the next one goes on; with several
    processes the group is in an unknown state after a failure, so the job ends and the rest stay pending. So they do
    after a signal to stop, which a run answers with a checkpoint.
    """
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("arvis_scale").setLevel(logging.INFO)
    _export_process_environment()
    is_alone = os.environ["WORLD_SIZE"] == "1"
    states: list[str] = []
    with PreemptionFlag() as preemption:
        for run in runs:
            # Several processes must agree to stop, which they do at a step of the run.
            if (is_alone and preemption.raised_by) or "preempted" in states:
                break
            folder = RunFolder(run.folder)
            try:
                states.append(_do(run.kind, load_config(str(folder.config)), folder))
            except Exception as error:
                traceback.print_exc()
                _record_failure(folder, error)
                if not is_alone:
                    raise
                states.append("failed")
    return states


def _do(kind: str, config: RunConfig, folder: RunFolder) -> str:
    # Imported here: these bring torch and DeepSpeed, which read the environment set before.
    from arvis_scale.engine.train import train

    if kind != "raw_pixels":
        return train(config).state
    return _measure_raw_pixels(config, folder)


def _measure_raw_pixels(config: RunConfig, folder: RunFolder) -> str:
    from arvis_scale.engine.distributed import join_processes
    from arvis_scale.engine.heartbeat import recorded_status
    from arvis_scale.engine.result import write_raw_pixel_reference
    from arvis_scale.engine.run_lock import exclusive

    with exclusive(folder, join_processes()):
        status = folder.status()
        if status.state == "completed":
            return status.state
        status = status.next_attempt(num_steps=0)
        with recorded_status(folder, status, is_first=True):
            write_raw_pixel_reference(config)
            status.state = "completed"
    return status.state


def _record_failure(folder: RunFolder, error: Exception) -> None:
    """Record a failure before the run's attempt began; one within it is in its status already."""
    status = folder.status()
    if status.state not in ("failed", "running"):  # running: another process has the run, and keeps it
        status.state, status.reason = "failed", " ".join(f"{type(error).__name__}: {error}".split())
        folder.write_status(status)


def _export_process_environment() -> None:
    """Set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT from submitit's job, before anything reads them."""
    from submitit.helpers import TorchDistributedEnvironment

    environment = TorchDistributedEnvironment()
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        # All processes are on this machine; its host name need not resolve, and nothing has to leave the loopback.
        environment.master_addr = "127.0.0.1"
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    environment.export(set_cuda_visible_devices=False, overwrite=True)
