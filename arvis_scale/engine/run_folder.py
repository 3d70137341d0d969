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
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from arvis_scale.atomic import read_json, write_json

SCHEMA_VERSION = 1
# A running process refreshes its heartbeat more often than this; an older one is a run whose process is gone.
STALE_AFTER_SECONDS = 120.0
PACKAGES = ("torch", "deepspeed", "webdataset", "open_clip_torch", "timm", "submitit", "numpy")


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
    schema_version: int = SCHEMA_VERSION

    def next_attempt(self, num_steps: int) -> Status:
        """Return the status that the next start of this run begins with."""
        return Status("running", attempt=self.attempt + 1, num_steps=num_steps)

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
        self.profile = self.path / "profile"
        self.checkpoints = self.path / "checkpoints"
        self.incidents = self.path / "incidents"
        self.watchdog = self.path / "watchdog"
        self.encoder = self.path / "encoder.safetensors"
        self.palette = self.path / "palette.npy"
        self.branch = self.path / "branch.json"
        self.status_file = self.path / "status.json"
        self.result = self.path / "result.json"

    def status(self) -> Status:
        """Read status.json; a folder without one is pending."""
        if not self.status_file.exists():
            return Status("pending")
        values = read_json(self.status_file, newest_schema=SCHEMA_VERSION)
        return Status(**values)

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
                "git_commit": _git_commit(),
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


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in ("arvis-scale", *PACKAGES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _git_commit() -> str | None:
    """Return the commit of the checkout that this code runs from, marked when it has changes; None when installed."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--match=-"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None
