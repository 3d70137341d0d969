"""The folder that holds everything known about one run: where its files are, its status, its environment.

Light: no torch, so that `sweep status` answers at once.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import Any

from arvis_scale.atomic import read_json, write_json
from arvis_scale.engine import batch_job
from arvis_scale.engine.exit_status import BAD_INPUT, STOPPED_BY_GUARD

SCHEMA_VERSION = 1
STATUS_SCHEMA_VERSION = 2
# A running process refreshes its heartbeat more often than this; an older one is a run whose process is gone.
STALE_AFTER_SECONDS = 120.0
GIVEN_UP = "given up: "  # begins the reason of a run that its job does not start again
ENDED_WITHOUT_A_WORD = "ended without a word (killed, or its node failed)"
# Ends of earlier starts that a status keeps.
MAX_ENDS = 20
PACKAGES = ("torch", "deepspeed", "webdataset", "open_clip_torch", "timm", "submitit", "numpy")


@dataclass(frozen=True)
class End:
    """How one start of a run ended."""

    attempt: int
    # preempted | failed
    state: str
    # In one line.
    reason: str
    # See `engine.exit_status`; null when it ended without a word.
    exit_status: int | None
    # Optimizer steps done, and the checkpoint that it began from (0: none).
    step: int
    begun_from: int
    # Seconds since the epoch: its last sign of life.
    time: float
    job: str
    node: str


@dataclass
class Status:
    """What a run is doing. `state` is pending, running, preempted, completed or failed."""

    state: str
    # Times this run was started.
    attempt: int = 0
    # Optimizer steps done and to do.
    step: int = 0
    num_steps: int = 0
    # Seconds since the epoch, refreshed while the run lives.
    heartbeat: float = 0.0
    host: str = ""
    # Why it failed or stopped, in one line.
    reason: str = ""
    # With which status its processes ended (`engine.exit_status`); null while it lives.
    exit_status: int | None = None
    # Slurm's or submitit's number of the job (1234_5), empty without one; and the node of the first process.
    job: str = ""
    node: str = ""
    # Processes of this start, one per device, and the seconds that all starts have taken on all of theirs.
    num_devices: int = 1
    device_seconds: float = 0.0
    # As last logged; null before.
    loss: float | None = None
    samples_per_second: float | None = None
    # Step of the checkpoint that this start began from; 0: none.
    begun_from: int = 0
    # Micro batch size that ran out of memory: starts with as much take half of it. null: none did.
    out_of_memory_at: int | None = None
    # Starts up to this one do not count as tries without progress: somebody has asked for the run since.
    counted_after: int = 0
    # How the starts before this one ended, the newest last; of many, the last ones.
    ends: list[End] = field(default_factory=list)
    schema_version: int = STATUS_SCHEMA_VERSION

    def pending(self, num_steps: int, *, is_retry: bool = False) -> Status:
        """Return the status of this run before its next start; how the last one ended joins `ends`.

        Unless the start `is_retry`, one that a job decided on, starts that led nowhere are counted anew from here.
        """
        return Status(
            "pending",
            attempt=self.attempt,
            step=self.step,
            num_steps=num_steps,
            device_seconds=self.device_seconds,
            out_of_memory_at=self.out_of_memory_at,
            counted_after=self.counted_after if is_retry else self.attempt,
            ends=[*self.ends, *self._last_end()][-MAX_ENDS:],
        )

    def next_attempt(self, num_steps: int, *, num_devices: int = 1, begun_from: int = 0) -> Status:
        """Return the status that the next start of this run begins with, from the checkpoint of step `begun_from`."""
        begun = self.pending(num_steps, is_retry=True)
        begun.state, begun.attempt, begun.step = "running", self.attempt + 1, 0
        begun.job, begun.node = batch_job.job_id(), batch_job.node_name()
        begun.num_devices, begun.begun_from = num_devices, begun_from
        return begun

    def _last_end(self) -> list[End]:
        if self.state == "pending" or self.attempt == 0:
            return []
        reason = self.reason
        if self.state == "running":
            reason = ENDED_WITHOUT_A_WORD
        state = "failed" if self.state == "running" else self.state
        return [
            End(
                self.attempt, state, reason, self.exit_status, self.step, self.begun_from, self.heartbeat,
                self.job, self.node,
            )
        ]  # fmt: skip

    @property
    def is_given_up(self) -> bool:
        """Whether it failed so that its job does not start it again."""
        is_final = self.exit_status in (BAD_INPUT, STOPPED_BY_GUARD) or self.reason.startswith(GIVEN_UP)
        return self.state == "failed" and is_final

    @property
    def last_reason(self) -> str:
        """Why this start ended, or while it has not, the one before; empty where none has."""
        return self.reason or (self.ends[-1].reason if self.ends else "")

    def starts_without_progress(self, newest_checkpoint: int) -> int:
        """Return how many starts, up to the last, began from the newest checkpoint (of that step) and left no newer."""
        begun = [end.begun_from for end in [*self.ends, *self._last_end()] if end.attempt > self.counted_after]
        return len(list(takewhile(lambda step: step >= newest_checkpoint, reversed(begun))))

    @property
    def is_alive(self) -> bool:
        """Whether a process is working on the run now, as far as its heartbeat tells."""
        return self.state == "running" and time.time() - self.heartbeat < STALE_AFTER_SECONDS


class RunFolder:
    """The files of one run (see docs/run-folder.md)."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.tensorboard_images = self.path / "tensorboard_images"
        self.profile = self.path / "profile"
        self.checkpoints = self.path / "checkpoints"
        self.incidents = self.path / "incidents"
        self.watchdog = self.path / "watchdog"
        self.lease = self.path / "lease"
        self.encoder = self.path / "encoder.safetensors"
        self.palette = self.path / "palette.npy"
        self.branch = self.path / "branch.json"
        self.status_file = self.path / "status.json"
        self.result = self.path / "result.json"

    def status(self) -> Status:
        """Read status.json; a folder without one is pending."""
        return read_status(self.status_file)

    def write_status(self, status: Status) -> None:
        """Write status.json with the heartbeat set to now."""
        status.heartbeat = time.time()
        status.host = socket.gethostname()
        write_json(self.status_file, asdict(status))

    def write_environment(self, world_size: int, device: str, pretrain_data: dict[str, str]) -> None:
        """Write what the run ran with: versions, git commit, host, command line, name and hash of its images."""
        write_json(
            self.environment,
            {
                "schema_version": SCHEMA_VERSION,
                "python": platform.python_version(),
                "packages": _package_versions(),
                "git_commit": git_commit(),
                "host": socket.gethostname(),
                "world_size": world_size,
                "device": device,
                "pretrain_data": pretrain_data,
                "cpu_count": os.cpu_count(),
                "command": [*sys.orig_argv],
            },
        )

    def read_result(self) -> dict[str, Any]:
        """Read result.json."""
        return read_json(self.result, newest_schema=SCHEMA_VERSION)


def read_status(file: Path) -> Status:
    """Read a status.json; where there is none, the run is pending."""
    try:
        values = read_json(file, newest_schema=STATUS_SCHEMA_VERSION)
    except FileNotFoundError:
        return Status("pending")
    ends = [End(**end) for end in values.get("ends", [])]
    return Status(**{**values, "ends": ends, "schema_version": STATUS_SCHEMA_VERSION})


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in ("arvis-scale", *PACKAGES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def git_commit() -> str | None:
    """Return the commit of the checkout that this code is of, marked when it has changes; None when installed.

    A job's code is a copy (`launch.executors.snapshot`), which knows that of the checkout it was made from.
    """
    here = Path(__file__).resolve().parent
    snapshot = here.parents[1] / "snapshot.json"
    if snapshot.is_file():
        commit: str | None = read_json(snapshot, newest_schema=1)["git_commit"]
        return commit
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--match=-"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None
