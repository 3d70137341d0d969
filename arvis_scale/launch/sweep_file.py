"""sweep.json: the runs of a study and the jobs that they were given to; their configurations are in their folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from arvis_scale.atomic import read_json, write_json

SCHEMA_VERSION = 2
SWEEP_NAME = "sweep.json"


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    name: str
    # "train" or "raw_pixels".
    kind: str
    # The job that it was last given to, as its executor calls it: a Slurm job `1234` or `1234_5` of an array, the
    # process number of a local job; None: none yet.
    job: str | None = None
    # Of a study with `tune`, the run's name without the tuned keys; else None.
    cell: str | None = None


@dataclass(frozen=True)
class TuneRule:
    """How the best run of a cell is told: by the lowest `by` over the values of `keys`."""

    keys: tuple[str, ...]
    by: str = "val_loss"


@dataclass(frozen=True)
class Budget:
    """Device hours: allowed by the study file and predicted by `plan`; None where nobody said."""

    device_hours: float | None = None
    predicted_device_hours: float | None = None


@dataclass(frozen=True)
class Sweep:
    """What sweep.json holds."""

    study: str
    # local | slurm | debug
    executor: str = "local"
    # The profile by name or path; None: the executor's own.
    cluster: str | None = None
    # Command lines that submitted it, first to last.
    commands: tuple[str, ...] = ()
    tune: TuneRule | None = None
    budget: Budget = Budget()
    # Folder of the code that the jobs run, relative to the study's; None: before the first submission.
    snapshot: str | None = None
    # The job that writes the report after all runs; None: none.
    report_job: str | None = None
    # The job that stores the teacher tokens of a folder, by the folder.
    token_jobs: Mapping[str, str] = field(default_factory=dict)
    runs: tuple[SweepRun, ...] = ()

    @property
    def jobs(self) -> dict[str, str]:
        """The job of every run that has one, by the run's name."""
        return {run.name: run.job for run in self.runs if run.job is not None}

    def with_jobs(self, jobs: Mapping[str, str]) -> Sweep:
        """Return the sweep with the `jobs` of some runs, by their names, in place of their earlier ones."""
        return replace(self, runs=tuple(replace(run, job=jobs.get(run.name, run.job)) for run in self.runs))


def read_sweep(folder: Path) -> Sweep:
    """Read the sweep.json of a study folder; `ValueError` when the folder holds no study."""
    file = folder / SWEEP_NAME
    if not file.is_file():
        raise ValueError(f"{folder} is not a study folder: {file.name} is missing (run `arvis-scale sweep submit`)")
    values = read_json(file, newest_schema=SCHEMA_VERSION)
    if values["schema_version"] == 1:
        return _read_version_1(values)
    tune, budget = values["tune"], values["budget"]
    return Sweep(
        study=values["study"],
        executor=values["executor"],
        cluster=values["cluster"],
        commands=tuple(values["commands"]),
        tune=TuneRule(tuple(tune["keys"]), tune["by"]) if tune else None,
        budget=Budget(**budget),
        snapshot=values["snapshot"],
        report_job=values["report_job"],
        token_jobs=values.get("token_jobs", {}),
        runs=tuple(SweepRun(**run) for run in values["runs"]),
    )


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Write the sweep.json of a study folder, whole or not at all."""
    write_json(folder / SWEEP_NAME, {"schema_version": SCHEMA_VERSION, **asdict(sweep)})


def _read_version_1(values: Mapping[str, Any]) -> Sweep:
    """Version 1 knew one executor, and which runs are raw pixels by their names alone."""
    runs = [
        SweepRun(run["name"], "raw_pixels" if run["name"].startswith("raw-pixels") else "train", run["job_id"])
        for run in values["runs"]
    ]
    return Sweep(study=values["study"], commands=tuple(values["commands"]), runs=tuple(runs))
