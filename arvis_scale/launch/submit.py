"""Gives a study's runs to submitit, starts only what is missing or failed, and waits where the executor is local."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import submitit
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from arvis_scale.atomic import read_json, write_json
from arvis_scale.config import save_config
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.engine.setup import check_run
from arvis_scale.launch.job import JobRun, run_job
from arvis_scale.launch.study import PlannedRun, Study, save_study

SCHEMA_VERSION = 1
_POLL_SECONDS = 0.5


def runs_to_start(study: Study) -> list[PlannedRun]:
    """Return the runs that are not completed and that no living process works on."""
    waiting = []
    for run in study.runs:
        status = RunFolder(run.config.output).status()
        if status.state != "completed" and not status.is_alive:
            waiting.append(run)
    return waiting


def submit(study: Study, command: Sequence[str]) -> list[str]:
    """Check every run, write the study folder, start what is to be started and wait for it.

    Returns the names of the runs that did not complete. Raises `ValueError` before anything is written when one of the
    runs could not be trained.
    """
    for run in study.runs:
        check_run(run.config)
        if run.config.parallel.processes > study.launch.max_parallel:
            raise ValueError(
                f"run {run.config.name} wants {run.config.parallel.processes} processes, but launch.max_parallel is "
                f"{study.launch.max_parallel}; raise it"
            )
    save_study(study)
    waiting = runs_to_start(study)
    for run in waiting:
        folder = RunFolder(run.config.output)
        save_config(run.config, folder.config)
        folder.write_status(Status("pending", attempt=folder.status().attempt, num_steps=run.config.num_steps))
    jobs = pack_jobs(waiting, study.launch.runs_per_job, num_slots=study.launch.max_parallel)
    _run_locally(study, jobs, command)
    return [run.config.name for run in study.runs if RunFolder(run.config.output).status().state != "completed"]


def pack_jobs(runs: Sequence[PlannedRun], runs_per_job: int, *, num_slots: int) -> list[list[PlannedRun]]:
    """Group runs that need equally many processes into jobs of at most `runs_per_job`.

    Runs are dealt out by their number of samples and size of model, as cards are, so that jobs take about equally long;
    there are as many as fill the `num_slots` processes that run at once, so that no short rest runs alone at the end.
    The jobs with most processes come first.
    """
    jobs: list[list[PlannedRun]] = []
    for processes in sorted({run.config.parallel.processes for run in runs}, reverse=True):
        group = [run for run in runs if run.config.parallel.processes == processes]
        group.sort(key=_cost, reverse=True)
        at_once = max(1, num_slots // processes)
        num_jobs = -(-len(group) // (runs_per_job * at_once)) * at_once
        jobs.extend(group[start::num_jobs] for start in range(min(num_jobs, len(group))))
    return jobs


def _cost(run: PlannedRun) -> tuple[float, int]:
    from arvis_scale.models.presets import encoder_size

    size = encoder_size(run.config.preset)
    return float(run.config.samples_seen) * size.width**2 * size.depth, size.width


def _run_locally(study: Study, jobs: list[list[PlannedRun]], command: Sequence[str]) -> None:
    """Run the jobs through submitit's local executor, at most `max_parallel` processes at once."""
    queue = list(jobs)
    running: dict[Any, tuple[list[PlannedRun], list[int]]] = {}  # submitit job -> its runs and the slots they take
    free = list(range(study.launch.max_parallel))
    job_ids: dict[str, str] = {}
    total = sum(map(len, jobs))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress, _cancelled_on_interrupt(running):
        bar = progress.add_task(f"{study.name}: runs", total=total)
        while queue or running:
            while queue and queue[0][0].config.parallel.processes <= len(free):
                job = queue.pop(0)
                slots = [free.pop(0) for _ in range(job[0].config.parallel.processes)]
                handle = _start(study, job, slots)
                running[handle] = (job, slots)
                job_ids.update({run.config.name: handle.job_id for run in job})
                _write_sweep(study, job_ids, command)
            for handle in [handle for handle in running if handle.done()]:
                job, slots = running.pop(handle)
                free.extend(slots)
                _close(handle, job)
            done = sum(RunFolder(run.config.output).status().state == "completed" for job in jobs for run in job)
            progress.update(bar, completed=done)
            time.sleep(_POLL_SECONDS)


def _start(study: Study, job: list[PlannedRun], slots: list[int]) -> Any:
    num_gpus = torch.cuda.device_count()
    executor = submitit.LocalExecutor(folder=study.output / "logs")
    executor.update_parameters(
        name=study.name,
        tasks_per_node=len(slots),
        gpus_per_node=len(slots) if num_gpus else 0,
        # More slots than GPUs share them: small runs leave most of a GPU idle.
        visible_gpus=[slot % num_gpus for slot in slots] if num_gpus else (),
        timeout_min=int(study.launch.timeout_hours * 60),
        stderr_to_stdout=True,
    )
    with _threads_per_process(max(1, (os.cpu_count() or 1) // study.launch.max_parallel)):
        return executor.submit(run_job, [JobRun(run.kind, run.config.output) for run in job])


@contextmanager
def _threads_per_process(num_threads: int) -> Iterator[None]:
    """Let started processes share the machine's cores instead of each taking all of them."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", str(num_threads))
    yield
    if before is None:
        del os.environ["OMP_NUM_THREADS"]


def _close(handle: Any, job: list[PlannedRun]) -> None:
    """Mark runs that a job left without a word (killed, out of memory, never begun) as failed."""
    for run in job:
        folder = RunFolder(run.config.output)
        status = folder.status()
        if status.state in ("running", "pending"):
            happened = "its process ended without a word" if status.state == "running" else "its job ended before it"
            status.state, status.reason = "failed", f"{happened}; see {handle.paths.stdout}"
            folder.write_status(status)


@contextmanager
def _cancelled_on_interrupt(running: dict[Any, Any]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for handle in running:
            handle.cancel()
        raise


def _write_sweep(study: Study, job_ids: dict[str, str], command: Sequence[str]) -> None:
    file = study.output / "sweep.json"
    before = read_json(file, newest_schema=SCHEMA_VERSION) if file.exists() else {"commands": [], "runs": []}
    known = {entry["name"]: entry["job_id"] for entry in before["runs"]}
    commands = before["commands"]
    line = " ".join(command)
    if line not in commands:
        commands = [*commands, line]
    runs = [
        {
            "name": run.config.name,
            "config": asdict(run.config),
            "job_id": job_ids.get(run.config.name, known.get(run.config.name)),
        }
        for run in study.runs
    ]
    write_json(file, {"schema_version": SCHEMA_VERSION, "study": study.name, "commands": commands, "runs": runs})
