"""How long from a study file to its jobs, for 10 to 10,000 runs, and how does it grow?

    python benchmarks/sweep_scale.py                          # expansion, checks, plan, run folders: 2 minutes
    python benchmarks/sweep_scale.py --cluster testcluster    # also submission to a Slurm, cancelled at once

Each size in a process of its own, for its peak memory: `expand` reads the study file and gives typed, validated runs
with names; `check` is what comes before anything starts (images, models, checkpoints); `plan` what --dry-run adds;
`folders` writes config.yaml and status.json of every run, each flushed to disk. `submit` is `sweep submit` from the
expanded runs on: checks, folders, a snapshot of the code, sweep.json and sbatch. Half of the runs are branches; XTRA
and AIM over five sizes of encoder, two lengths and seeds. Writes JSON beside the table.
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
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from arvis_scale.atomic import write_json, write_text
from arvis_scale.data.build import build_shards
from arvis_scale.launch.executors.profiles import profile_path
from arvis_scale.launch.studies.budget import study_cost
from arvis_scale.launch.studies.study import load_study

RESULTS = Path(__file__).parent / "results"
SIZES = (10, 100, 1_000, 10_000)
# A cluster holds only so many jobs (Slurm's MaxJobCount is 10,000 where nobody set it).
MOST_SUBMITTED = 1_000
STUDY = """
schema_version: 1
name: scale
base: digits
set: {{data.shards: {shards}, probe_data.shards: {shards}, optimizer.schedule: warmup_stable_decay,
      optimizer.warmup_samples: 128}}
axes:
  objective: {objectives}
  preset: {presets}
  samples_seen: [1280, 2560]
  seed: {seeds}
rules:
  preset:
    pico: {{optimizer.learning_rate: 3.0e-3}}
references: false
launch: {{executor: {executor}, cluster: {cluster}, max_parallel: 2}}
"""


def write_study(folder: Path, shards: Path, num_runs: int, cluster: str | None) -> Path:
    """Write a study file of `num_runs`, and beside it a profile of the cluster whose jobs begin tomorrow."""
    if cluster is not None:
        later = profile_path(cluster).read_text(encoding="utf-8") + "\nsbatch: {begin: now+1day}\n"
        write_text(folder / "later.yaml", later)
    text = STUDY.format(
        shards=shards,
        objectives="[xtra]" if num_runs == SIZES[0] else "[xtra, aim]",
        presets="[pico, nano, micro, mini, midi]",
        seeds=list(range(max(1, num_runs // 20))),
        executor="local" if cluster is None else "slurm",
        cluster="null" if cluster is None else folder / "later.yaml",
    )
    write_text(folder / "scale.yaml", text)
    return folder / "scale.yaml"


def measure(shards: Path, num_runs: int, cluster: str | None) -> dict[str, Any]:
    """Return seconds by phase and the peak memory of this process, which has done nothing else."""
    clock = _Clock()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = write_study(folder, shards, num_runs, cluster)
        clock.read()
        study = load_study(file, folder / "out")
        row: dict[str, Any] = {"runs": len(study.runs), "expand": clock.read()}
        row["expand_bytes"] = _peak_bytes()
        assert len(study.runs) == num_runs, "what the study file was written for"
        from arvis_scale.launch.run_checks import check_runs  # brings torch, which is a part of what a check costs
        from arvis_scale.launch.submit import prepare_runs, submit

        check_runs(study)
        row["check"] = clock.read()
        study_cost(study, "h100")
        row["plan"] = clock.read()
        prepare_runs(study.runs)
        row["folders"] = clock.read()
        row["submit"] = None
        if cluster is not None and num_runs <= MOST_SUBMITTED:
            submission = submit(study, ["benchmark"])
            row["submit"] = clock.read()
            subprocess.run(["scancel", *{job.partition("_")[0] for job in submission.jobs.values()}], check=True)
        row["peak_bytes"] = _peak_bytes()
    return row


class _Clock:
    def __init__(self) -> None:
        self._last = time.perf_counter()

    def read(self) -> float:
        """Return the seconds since the last reading."""
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def _peak_bytes() -> int:
    """Return the most memory that this program had resident; getrusage counts what it was forked from too."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure_alone(shards: Path, num_runs: int, cluster: str | None) -> dict[str, Any]:
    """Return what `measure` says in a fresh process."""
    command = [sys.executable, __file__, "--one", str(num_runs), "--shards", str(shards)]
    command += ["--cluster", cluster] if cluster else []
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return row


def table_of(rows: list[dict[str, Any]]) -> Table:
    """Return the measurements as a table."""
    phases = ("expand", "check", "plan", "folders", "submit")
    table = Table("runs", *(f"{phase} s" for phase in phases), "expand ms per run", "expand MB", "peak MB")
    for row in rows:
        seconds = ("" if row[phase] is None else f"{row[phase]:.2f}" for phase in phases)
        memory = (f"{row[key] / 1e6:,.0f}" for key in ("expand_bytes", "peak_bytes"))
        table.add_row(f"{row['runs']:,}", *seconds, f"{1e3 * row['expand'] / row['runs']:.2f}", *memory)
    return table


def main() -> None:
    """Measure every size, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", help="profile of a Slurm to submit to, by name or path")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of runs: 10, or multiples of 20")
    parser.add_argument("--output", type=Path, help="JSON file [default: results/DATE-HOST-sweep_scale.json]")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--shards", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.shards, arguments.one, arguments.cluster)))
        return
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as temporary:
        shards = Path(temporary) / "digits"
        build_shards("digits", shards)
        rows = [measure_alone(shards, num_runs, arguments.cluster) for num_runs in arguments.sizes]
    console.print(table_of(rows))
    now = datetime.now(timezone.utc)
    path = arguments.output or RESULTS / f"{now:%Y-%m-%d}-{platform.node()}-sweep_scale.json"
    machine = {"host": platform.node(), "cpus": os.cpu_count(), "load_average": os.getloadavg()[0]}
    report = {"schema_version": 1, "measured": now.isoformat(timespec="seconds"), "machine": machine, "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)
    console.print(f"wrote {path}")


if __name__ == "__main__":
    main()
