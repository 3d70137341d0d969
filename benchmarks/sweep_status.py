"""How does `sweep status` grow with the number of runs, from 10 to 10,000?

    python benchmarks/sweep_status.py            # half a minute and 150 MB of disk for a while
    python benchmarks/sweep_status.py --quick    # does it run at all

Each row is a study whose runs are completed (three of five), running (one in fifty), failed (one in a hundred) or
pending, as a sweep leaves them. Seconds and peak memory are those of the whole command in a process of its own, with
the start of Python:

- first: no call before it has left a cache, and the files were dropped from the page cache (directories were not)
- next: the call after it; nothing has changed but the running runs
- json: the same, every run as JSON
- look: one more look of `--watch`, within the process

Slurm is a stand-in whose `squeue` and `sacct` print a file: what a controller takes to answer is not in the numbers.

Writes JSON beside the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from arvis_scale.atomic import write_json
from arvis_scale.engine.run_folder import End, RunFolder, Status
from arvis_scale.launch.status.run_reports import CACHE_NAME
from arvis_scale.launch.status.study_status import StudyWatch
from arvis_scale.launch.sweep_file import Budget, Sweep, SweepRun, write_sweep

RESULTS = Path(__file__).parent / "results"
METRICS = '{"step": 50, "loss": 1.25, "seconds_per_step": 0.5, "images_per_second": 128.0}\n' * 50
END = End(1, "preempted", "SIGTERM", 75, 40, 0, time.time() - 3600, "7_0", "node1")


def state_of(number: int) -> str:
    """Return the state that run `number` of a study is in."""
    if number % 50 == 0:
        return "running"
    if number % 100 == 1:
        return "failed"
    return "completed" if number % 5 < 3 else "pending"


def write_study(folder: Path, num_runs: int) -> None:
    """Write a study folder as a sweep leaves it, and what Slurm says of its jobs."""
    runs = [SweepRun(f"xtra-small-u{number}-n1000000-s0", "train", f"7_{number}") for number in range(num_runs)]
    write_sweep(folder, Sweep("large", "slurm", "h100", budget=Budget(5000.0, 4000.0), runs=tuple(runs)))
    jobs = []
    for number, run in enumerate(runs):
        path = RunFolder(folder / "runs" / run.name)
        state = state_of(number)
        status = Status(state, attempt=2, step=50, num_steps=100, job=run.job or "", node="node1", ends=[END])
        status.loss, status.samples_per_second, status.device_seconds = 1.25, 128.0, 3600.0
        path.path.mkdir(parents=True)
        status = Status("pending", num_steps=100) if state == "pending" else status
        status.heartbeat = time.time()
        # Not through `write_status`, which waits for the disk.
        path.status_file.write_text(json.dumps(asdict(status), indent=2))
        if state == "running":
            path.metrics.write_text(METRICS)
        if state == "completed":
            result = {"schema_version": 1, "device_seconds": 3600.0, "probes": {"linear": {"accuracy": 0.5}}}
            path.result.write_text(json.dumps(result))
        word = {"running": "RUNNING", "pending": "PENDING", "failed": "FAILED"}.get(state, "COMPLETED")
        jobs.append(f"{run.job}|{word}|0|0|None|node1|")
        os.utime(path.path, (time.time() - 3600, time.time() - 3600))  # as if it had changed an hour ago
    commands = folder / "commands"
    commands.mkdir()
    (commands / "jobs.txt").write_text("\n".join(jobs) + "\n")
    for name, script in (("squeue", f"cat {commands}/jobs.txt"), ("sacct", "exit 1")):
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)


def drop_from_page_cache(folder: Path) -> None:
    """Let the next reader of the study's files find them on the disk alone."""
    os.sync()
    for path in (folder / "runs").rglob("*.json"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_command(folder: Path, *options: str) -> tuple[float, float, int]:
    """Return seconds, seconds of processor time and peak memory in bytes of `sweep status`."""
    command = [sys.executable, "-m", "arvis_scale", "sweep", "status", str(folder), *options]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, "it prints what is wrong"
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def measure(num_runs: int) -> dict[str, Any]:
    """Return seconds and bytes for a study of `num_runs`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "study"
        started = time.perf_counter()
        write_study(folder, num_runs)
        written = time.perf_counter() - started
        os.environ["PATH"] = os.pathsep.join([str(folder / "commands"), os.environ["PATH"]])
        drop_from_page_cache(folder)
        row: dict[str, Any] = {"runs": num_runs, "seconds_to_write": written}
        for name, options in (("first", ()), ("next", ()), ("json", ("--json",))):
            measured = measure_command(folder, *options)
            row[f"seconds_{name}"], row[f"cpu_seconds_{name}"], row[f"peak_bytes_{name}"] = measured
        watch = StudyWatch(folder)
        watch.look()
        started = time.perf_counter()
        watch.look()
        row["seconds_look"] = time.perf_counter() - started
        row["cache_bytes"] = (folder / CACHE_NAME).stat().st_size
        return row


def print_table(rows: list[dict[str, Any]], console: Console) -> None:
    """Print what was measured."""
    title = "sweep status: seconds (of them, of the processor)"
    table = Table("runs", "first", "next", "json", "look", "peak MB", "cache kB", title=title)
    for row in rows:
        peak = max(row[f"peak_bytes_{name}"] for name in ("first", "next", "json"))
        seconds = [
            f"{row[f'seconds_{name}']:.2f} ({row[f'cpu_seconds_{name}']:.2f})" for name in ("first", "next", "json")
        ]
        seconds.append(f"{row['seconds_look']:.3f}")
        table.add_row(f"{row['runs']:,}", *seconds, f"{peak / 1e6:.0f}", f"{row['cache_bytes'] / 1e3:,.0f}")
    console.print(table)


def main() -> None:
    """Measure, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 and 100 runs")
    parser.add_argument(
        "--output", type=Path, help="JSON file; by default benchmarks/results/DATE-HOST-sweep_status.json"
    )
    arguments, console = parser.parse_args(), Console(width=120)
    now = datetime.now(timezone.utc)
    rows = [measure(num_runs) for num_runs in ((10, 100) if arguments.quick else (10, 100, 1_000, 10_000))]
    print_table(rows, console)
    path = arguments.output or RESULTS / f"{now:%Y-%m-%d}-{platform.node()}-sweep_status.json"
    machine = {"host": platform.node(), "cpus": os.cpu_count(), "load_average": os.getloadavg()[0]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        path, {"schema_version": 1, "measured": now.isoformat(timespec="seconds"), "machine": machine, "rows": rows}
    )
    console.print(f"wrote {path}")


if __name__ == "__main__":
    main()
