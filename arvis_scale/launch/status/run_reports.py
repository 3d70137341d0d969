"""What the folders of a study's runs say; a folder that has not changed since the last look is not read again.

A run's status and its result are renamed into its folder, which dates the folder anew. So one `scandir` of `runs/`
tells which have changed, and on network disks it brings the dates along with the names.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arvis_scale.atomic import read_json, write_text
from arvis_scale.engine.run_folder import SCHEMA_VERSION, STALE_AFTER_SECONDS, read_status
from arvis_scale.launch.cancellation import is_cancelled

CACHE_NAME = ".status_cache.json"
CACHE_SCHEMA = 1
# Two changes within one tick of the disk's clock have the same date, and a network disk's clock may be ahead by some
# seconds: a folder that changed so lately is read again at the next look.
_SETTLED_AFTER_SECONDS = 10.0
_NUM_READERS = 16
# Some lines of metrics.jsonl.
_TAIL_BYTES = 8192


@dataclass(frozen=True)
class RunReport:
    """What one run's folder says; see `engine.run_folder.Status`."""

    state: str = "pending"
    attempt: int = 0
    step: int = 0
    num_steps: int = 0
    heartbeat: float = 0.0
    job: str = ""
    node: str = ""
    # How the last start ended, in one line.
    reason: str = ""
    loss: float | None = None
    samples_per_second: float | None = None
    # Spent on it so far, in all attempts.
    device_seconds: float = 0.0
    # Linear-probe accuracy, where there is one.
    accuracy: float | None = None
    # Whether somebody has cancelled it.
    is_cancelled: bool = False
    # Why its files cannot be read; then the rest is as of a pending run.
    unreadable: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether a process is working on it now, as far as its heartbeat tells."""
        return self.state == "running" and self.heartbeat_age < STALE_AFTER_SECONDS

    @property
    def heartbeat_age(self) -> float:
        """In seconds."""
        return max(0.0, time.time() - self.heartbeat)


@dataclass(frozen=True)
class _Dated:
    """A folder as `scandir` dates it: when its entries changed last, and which folder it is."""

    changed_ns: int
    inode: int

    @property
    def key(self) -> list[int]:
        """What is the same as long as the folder is."""
        return [self.changed_ns, self.inode]

    @property
    def is_settled(self) -> bool:
        return time.time() - self.changed_ns / 1e9 > _SETTLED_AFTER_SECONDS


def run_reports(study_folder: Path, names: Sequence[str]) -> dict[str, RunReport]:
    """Return what the folders of the runs `names` say, in that order; a run without a folder is pending.

    What it has read it leaves in the study folder for the next call, where it may write there.
    """
    dates = _dates(study_folder / "runs")
    cache_file = study_folder / CACHE_NAME
    cache = _read_cache(cache_file)
    kept = {name: entry for name, entry in cache.items() if name in dates and entry["dated"] == dates[name].key}
    reports = {name: RunReport(**kept[name]["report"]) if name in kept else RunReport() for name in names}
    changed = [name for name in names if name in dates and name not in kept]
    for name, report in _read_all(study_folder / "runs", changed):
        reports[name] = report
        # A running one will have changed by the next look.
        if report.state != "running" and not report.unreadable and dates[name].is_settled:
            kept[name] = {"dated": dates[name].key, "report": vars(report)}
    if kept != cache:
        _write_cache(cache_file, kept)
    return reports


def _read_all(runs: Path, names: Sequence[str]) -> Iterator[tuple[str, RunReport]]:
    """Yield what the folders say, several at a time: on a network disk each file is a wait."""
    shares = [names[start::_NUM_READERS] for start in range(min(_NUM_READERS, len(names)))]
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        for share in readers.map(lambda share: [(name, read_report(runs / name)) for name in share], shares):
            yield from share


def read_report(path: Path) -> RunReport:
    """Return what one run's folder says, read anew."""
    try:
        status = read_status(path / "status.json")
        is_completed = status.state == "completed"
        result = read_json(path / "result.json", newest_schema=SCHEMA_VERSION) if is_completed else None
    except (ValueError, OSError) as error:
        return RunReport(unreadable=" ".join(str(error).split()))
    spent = status.device_seconds
    if result is not None and not spent:  # of an earlier version, which had it here alone
        spent = result["device_seconds"] or 0.0
    return RunReport(
        state=status.state,
        attempt=status.attempt,
        step=status.step,
        num_steps=status.num_steps,
        heartbeat=status.heartbeat,
        job=status.job,
        node=status.node or status.host,
        reason=status.last_reason,
        loss=status.loss,
        samples_per_second=status.samples_per_second,
        device_seconds=spent,
        accuracy=result["probes"].get("linear", {}).get("accuracy") if result else None,
        is_cancelled=not is_completed and is_cancelled(path),
    )


def last_logged(path: Path) -> dict[str, Any]:
    """Return the last line of a run's metrics that tells its speed; empty before there is one.

    It is newer than the run's status, which is written with its heartbeat.
    """
    try:
        with open(path / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:  # cut: at the beginning by us, at the end by a process that is writing
            continue
        if isinstance(record, dict) and record.get("seconds_per_step") is not None:
            return record
    return {}


def _dates(runs: Path) -> dict[str, _Dated]:
    dates = {}
    try:
        with os.scandir(runs) as entries:
            for entry in entries:
                found = entry.stat()
                dates[entry.name] = _Dated(found.st_mtime_ns, found.st_ino)
    except FileNotFoundError:  # nothing is submitted yet
        pass
    return dates


def _read_cache(file: Path) -> dict[str, Any]:
    """Return the last call's reports by run; none where they are of another version or not whole."""
    try:
        cache = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cache["runs"] if cache.get("schema_version") == CACHE_SCHEMA else {}


def _write_cache(file: Path, runs: dict[str, Any]) -> None:
    try:
        write_text(file, json.dumps({"schema_version": CACHE_SCHEMA, "runs": runs}, separators=(",", ":")))
    except OSError:  # somebody else's study, or a full disk: the next call reads again
        return
