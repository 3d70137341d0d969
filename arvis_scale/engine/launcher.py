"""Starts the processes of one run from the command line, where no launcher has done so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import FrameType

from arvis_scale.config import RunConfig
from arvis_scale.engine.ports import free_port
from arvis_scale.engine.preemption import SIGNALS
from arvis_scale.engine.run_folder import RunFolder, Status

# After one process has failed, the others get this long to notice before they are killed.
_GRACE_SECONDS = 30.0


def train_here(config: RunConfig, arguments: list[str]) -> Status:
    """Train a run: in this process, or in several when it wants them and no launcher has started any.

    `arguments` is this command's own line after `arvis-scale`, which the processes run again. Raises `ValueError` for a
    run that cannot be trained, before any process starts.
    """
    if "WORLD_SIZE" in os.environ or config.parallel.processes == 1:
        from arvis_scale.engine.train import train

        return train(config)
    from arvis_scale.engine.checks import check_run

    check_run(config)
    folder = RunFolder(config.output)
    if folder.status().state != "completed":
        _run_processes(config.parallel.processes, [sys.executable, "-m", "arvis_scale", *arguments])
    return folder.status()


def _run_processes(world_size: int, command: list[str]) -> None:
    """Run `command` once per rank, pass on the signals that make a run save, and wait for all."""
    shared = {
        **os.environ,
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    shared.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // world_size)))
    ranks = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(world_size)
    ]

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in ranks:
            process.send_signal(number)

    earlier = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        _wait_for_all(ranks)
    finally:
        for process in ranks:
            process.kill()
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _wait_for_all(ranks: list[subprocess.Popen[bytes]]) -> None:
    """Return when all have ended, or some time after the first has failed."""
    deadline = None
    while any(process.poll() is None for process in ranks):
        if deadline is None and any(process.returncode for process in ranks):
            deadline = time.monotonic() + _GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            return
        time.sleep(0.2)


def is_first_process() -> bool:
    """Return whether this process speaks for the run: rank 0, or the only one."""
    return os.environ.get("RANK", "0") == "0"
