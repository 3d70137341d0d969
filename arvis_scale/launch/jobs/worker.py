"""The process that trains: one of the processes of a run, or of several runs one after the other.

`python -m arvis_scale.launch.jobs.worker DIRECTORY KIND FOLDER [KIND FOLDER ...]`, with RANK and its kin set;
`launch.jobs.job` starts it, and survives it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Sequence

from arvis_scale.config import RunConfig, load_config
from arvis_scale.engine.checkpointing.files import newest_step
from arvis_scale.engine.exit_status import COMPLETED, FAILED, exit_status_of
from arvis_scale.engine.heartbeat import in_one_line, write_unless_failed
from arvis_scale.engine.preemption import PreemptionFlag
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.cancellation import is_cancelled

_PR_SET_PDEATHSIG = 1
_logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Do the runs named by kind and folder in a directory, and return the status that the process ends with."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("arvis_scale").setLevel(logging.INFO)
    directory, *words = arguments
    os.chdir(directory)
    runs = list(zip(words[::2], words[1::2], strict=True))
    return do_runs(runs)


def do_runs(runs: Sequence[tuple[str, str]]) -> int:
    """Do the runs (kind, folder) in order; called by every process of the group. Return the process's status.

    A failing run is recorded in its folder and, when there is one process, the next one goes on; of several processes
    the group is in an unknown state after a failure, so the rest stay pending. So they do after a signal to stop, which
    a run answers with a checkpoint.
    """
    is_alone = os.environ["WORLD_SIZE"] == "1"
    with PreemptionFlag() as preemption:
        for kind, path in runs:
            # Several processes must agree to stop, which they do at a step of the run.
            if is_alone and preemption.raised_by:
                break
            folder = RunFolder(path)
            # Of several, one might see the mark and another not; `run_job` has looked before it started them.
            if is_alone and is_cancelled(folder.path):
                continue
            try:
                if _do(kind, load_config(str(folder.config)), folder) == "preempted":
                    break
            except Exception as error:
                _logger.exception("%s", folder.path)
                _record_failure(folder, error)
                if not is_alone:
                    return FAILED
    return COMPLETED


def _do(kind: str, config: RunConfig, folder: RunFolder) -> str:
    # Imported here: these bring torch and DeepSpeed, which take seconds.
    if kind == "raw_pixels":
        return _measure_raw_pixels(config, folder)
    from arvis_scale.engine.train import train

    return train(config).state


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
    """Record a failure before the run's attempt began, as one; a failure within it is in its status already."""
    status = folder.status()
    if status.state != "pending":  # running: another job has the run, and keeps it
        return
    failed = status.next_attempt(status.num_steps, begun_from=newest_step(folder.checkpoints))
    failed.state, failed.reason, failed.exit_status = "failed", in_one_line(error), exit_status_of(error)
    write_unless_failed(folder, failed)


def _die_with_parent() -> None:
    """Let the system kill this process when the one that started it is gone: nobody would notice its end."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(FAILED)


if __name__ == "__main__":
    _die_with_parent()
    sys.exit(main(sys.argv[1:]))
