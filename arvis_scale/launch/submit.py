"""Starts what is missing or failed of a study's runs, and waits for it."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arvis_scale.atomic import read_json, write_json
from arvis_scale.config import save_config
from arvis_scale.engine.checks import check_run
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.evaluation.probe_run import open_probe_data
from arvis_scale.launch.expansion import PlannedRun
from arvis_scale.launch.local_jobs import StartedJob, gpu_names, is_living_job, run_locally
from arvis_scale.launch.locks import held
from arvis_scale.launch.packing import pack_jobs
from arvis_scale.launch.study import Study, save_study

SCHEMA_VERSION = 1
_logger = logging.getLogger(__name__)


def submit(study: Study, command: Sequence[str]) -> list[str]:
    """Check every run, write the study folder, start what is to be started and wait for it.

    Returns the names of the runs that did not complete. Raises `ValueError` before anything is written when one of the
    runs could not be trained, and when another process is submitting the study.
    """
    _check_runs(study)
    with held(study.output / ".lock") as is_alone:
        if not is_alone:
            raise ValueError(
                f"{study.output}: another `sweep submit` is at work, the {len(_unfinished(study))} unfinished runs are "
                f"left to it; wait, or stop it with Ctrl-C"
            )
        save_study(study)
        to_start, left = runs_to_start(study)
        if left:
            _logger.info(
                "%d of %d runs are left to another submission, whose jobs still live", len(left), len(study.runs)
            )
        for run in to_start:
            folder = RunFolder(run.config.output)
            save_config(run.config, folder.config)
            folder.write_status(Status("pending", attempt=folder.status().attempt, num_steps=run.config.num_steps))
        sweep = _Sweep(study, command)
        sweep.write()
        jobs = pack_jobs(to_start, study.launch.runs_per_job, num_slots=study.launch.max_parallel)
        run_locally(study, jobs, sweep.add)
    return _unfinished(study)


def runs_to_start(study: Study) -> tuple[list[PlannedRun], list[PlannedRun]]:
    """Return the runs that nobody works on, and those that a living process or job has yet to finish.

    A job that an earlier submission started outlives it; which run has which is in sweep.json.
    """
    job_ids = {entry["name"]: entry["job_id"] for entry in _read_sweep(study.output)["runs"]}
    living = {job_id for job_id in set(job_ids.values()) if job_id is not None and is_living_job(job_id)}
    to_start: list[PlannedRun] = []
    left: list[PlannedRun] = []
    for run in study.runs:
        status = RunFolder(run.config.output).status()
        if status.state == "completed":
            continue
        has_job = status.state in ("pending", "running") and job_ids.get(run.config.name) in living
        (left if status.is_alive or has_job else to_start).append(run)
    return to_start, left


def _unfinished(study: Study) -> list[str]:
    return [run.config.name for run in study.runs if RunFolder(run.config.output).status().state != "completed"]


def _check_runs(study: Study) -> None:
    num_gpus = len(gpu_names())
    for run in study.runs:
        if run.kind == "raw_pixels":
            open_probe_data(run.config)
        else:
            check_run(run.config)
        processes = run.config.parallel.processes
        if processes > study.launch.max_parallel:
            raise ValueError(
                f"run {run.config.name} wants {processes} processes, but launch.max_parallel is "
                f"{study.launch.max_parallel}; raise it"
            )
        if 0 < num_gpus < processes:
            raise ValueError(
                f"run {run.config.name} wants parallel.processes={processes}, one per GPU, but this machine has "
                f"{num_gpus}; lower it"
            )


def _read_sweep(output: Path) -> dict[str, Any]:
    file = output / "sweep.json"
    return read_json(file, newest_schema=SCHEMA_VERSION) if file.exists() else {"commands": [], "runs": []}


class _Sweep:
    """sweep.json: the study's runs with their jobs, and the commands that submitted it."""

    def __init__(self, study: Study, command: Sequence[str]) -> None:
        before = _read_sweep(study.output)
        line = shlex.join(command)
        self._study = study
        self._commands = before["commands"] if line in before["commands"] else [*before["commands"], line]
        self._job_ids = {entry["name"]: entry["job_id"] for entry in before["runs"]}

    def add(self, job: StartedJob) -> None:
        """Note the job of its runs."""
        self._job_ids.update({run.config.name: job.handle.job_id for run in job.runs})
        self.write()

    def write(self) -> None:
        runs = [
            {"name": run.config.name, "config": asdict(run.config), "job_id": self._job_ids.get(run.config.name)}
            for run in self._study.runs
        ]
        write_json(
            self._study.output / "sweep.json",
            {"schema_version": SCHEMA_VERSION, "study": self._study.name, "commands": self._commands, "runs": runs},
        )
