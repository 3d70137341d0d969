"""Starts the processes of one run from the command line, where no launcher has done so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import FrameType

from arvis_scale.config import RunConfig
from arvis_scale.engine.addresses import LOOPBACK, bound_to
from arvis_scale.engine.exit_status import FAILED
from arvis_scale.engine.ports import reserved_port
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
        killed = _run_processes(config.parallel.processes, [sys.executable, "-m", "arvis_scale", *arguments])
        if killed is not None:
            _record_kill(folder, *killed)
    return folder.status()


def _run_processes(world_size: int, command: list[str]) -> tuple[int, signal.Signals] | None:
    """Run `command` once per rank, pass on the signals that make a run save, and wait for all.

    Returns rank and signal of the process that failed first, where a signal from elsewhere ended it.
    """
    with reserved_port() as port:
        return _run_ranks(world_size, command, port)


def _run_ranks(world_size: int, command: list[str], port: int) -> tuple[int, signal.Signals] | None:
    shared = {
        **bound_to(LOOPBACK),
        **os.environ,
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(port),
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
        return _wait_for_all(ranks)
    finally:
        for process in ranks:
            process.kill()
        for process in ranks:
            process.wait()
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _wait_for_all(ranks: list[subprocess.Popen[bytes]]) -> tuple[int, signal.Signals] | None:
    """Return when all have ended, or some time after the first has failed; see `_run_processes`."""
    deadline = None
    first_failed: int | None = None
    while any(process.poll() is None for process in ranks):
        if first_failed is None:
            first_failed = _killed_or_failed(ranks)
            deadline = time.monotonic() + _GRACE_SECONDS
        elif deadline is not None and time.monotonic() > deadline:
            break
        time.sleep(0.2)
    rank = _killed_or_failed(ranks) if first_failed is None else first_failed
    code = ranks[rank].returncode if rank is not None else 0
    assert code is not None, "it has ended"
    return (rank, signal.Signals(-code)) if rank is not None and code < 0 else None


def _killed_or_failed(ranks: list[subprocess.Popen[bytes]]) -> int | None:
    """Return the rank of a process that a signal ended, else of one that failed: a failure often follows a kill."""
    codes = {rank: process.returncode for rank, process in enumerate(ranks) if process.returncode}
    return min(codes, key=lambda rank: (codes[rank] > 0, rank), default=None)


def _record_kill(folder: RunFolder, rank: int, number: signal.Signals) -> None:
    """Write why a run ended whose process could not; what the others saw of it follows."""
    status = folder.status()
    if status.state not in ("running", "failed"):
        return
    seen = f"; another process: {status.reason}" if status.reason else ""
    advice = "; out of memory?" if number is signal.SIGKILL else ""
    status.state, status.exit_status = "failed", FAILED
    status.reason = f"the process of rank {rank} was ended by {number.name}{advice}{seen}"
    folder.write_status(status)


def is_first_process() -> bool:
    """Return whether this process speaks for the run: rank 0, or the only one."""
    return os.environ.get("RANK", "0") == "0"
