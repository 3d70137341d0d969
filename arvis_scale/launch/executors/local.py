"""Jobs on this machine: a queue of them, as many at once as their processes may be."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.cancellation import is_cancelled
from arvis_scale.launch.executors.executor import Notes
from arvis_scale.launch.executors.local_jobs import (
    POLL_SECONDS,
    Place,
    StartedJob,
    cancel_jobs,
    close_job,
    gpu_names,
    is_living_job,
    saved_when_interrupted,
    start_job,
)
from arvis_scale.launch.executors.packing import choose_gpus
from arvis_scale.launch.executors.profiles import ClusterProfile
from arvis_scale.launch.executors.task import ReportTask, train_task
from arvis_scale.launch.executors.token_jobs import tokenize_task, tokens_to_make
from arvis_scale.launch.studies.expansion import PlannedRun
from arvis_scale.launch.studies.study import Study

_logger = logging.getLogger(__name__)


class LocalExecutor:
    """Runs a study's jobs on this machine, at most `launch.max_parallel` processes at once, and waits for them."""

    waits = True

    def __init__(self, profile: ClusterProfile, study_folder: Path) -> None:
        self._profile = profile
        self._logs = study_folder / "logs"

    def check(self, study: Study) -> None:
        """See `Executor.check`."""
        num_gpus, most = len(gpu_names()), study.launch.max_parallel or 1
        for run in study.runs:
            processes = run.config.parallel.processes
            if processes > most:
                raise ValueError(
                    f"run {run.config.name} wants {processes} processes, but launch.max_parallel is {most}; raise it"
                )
            if 0 < num_gpus < processes:
                raise ValueError(
                    f"run {run.config.name} wants parallel.processes={processes}, one per GPU, but this machine has "
                    f"{num_gpus}; lower it"
                )

    def run(self, study: Study, snapshot: Path, jobs: Sequence[Sequence[PlannedRun]], notes: Notes) -> None:
        """See `Executor.run`.

        When this process is interrupted (Ctrl-C, SIGTERM), the runs are asked to save, and get `SAVE_SECONDS` to do so.
        """
        for folder, run in tokens_to_make(study, (run for job in jobs for run in job)).items():
            _logger.info("teacher tokens: %s", tokenize_task(study, folder, run)())
        if jobs:
            self._run_queue(study, self._place(study, snapshot), list(jobs), notes)
        if study.launch.report:
            _logger.info("report: %s", ReportTask(str(Path.cwd()), str(study.output))())

    def living(self, jobs: Iterable[str]) -> set[str]:
        """See `Executor.living`."""
        return {job for job in jobs if is_living_job(job, self._logs)}

    def cancel(self, jobs: Iterable[str]) -> None:
        """See `Executor.cancel`; the submission, while it lives, goes on with other jobs (`submit.stop_submission`)."""
        cancel_jobs(list(jobs), self._logs)

    def _run_queue(self, study: Study, place: Place, queue: list[Sequence[PlannedRun]], notes: Notes) -> None:
        runs = [run for job in queue for run in job]
        running: list[StartedJob] = []
        slots, gpus = study.launch.max_parallel or 1, gpu_names()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with saved_when_interrupted(running), Progress(*columns) as progress:
            bar = progress.add_task(f"{study.name}: runs", total=len(runs))
            while queue or running:
                job = _next_job(queue, running, slots - sum(other.num_processes for other in running))
                if job is not None:
                    queue.remove(job)
                    if all(is_cancelled(Path(run.config.output)) for run in job):
                        continue
                    chosen = choose_gpus(gpus, [other.gpus for other in running], job[0].config.parallel.processes)
                    task = train_task(study, job)
                    running.append(start_job(study.name, task, job, place, chosen, study.launch.timeout_hours))
                    notes.runs({run.config.name: running[-1].handle.job_id for run in job})
                    continue
                _let_go(running)
                done = sum(RunFolder(run.config.output).status().state == "completed" for run in runs)
                progress.update(bar, completed=done)
                time.sleep(POLL_SECONDS)

    def _place(self, study: Study, snapshot: Path) -> Place:
        # Processes share the machine's cores instead of each taking all of them.
        num_threads = max(1, (os.cpu_count() or 1) // (study.launch.max_parallel or 1))
        return Place(self._logs, snapshot, self._profile.environment, num_threads)


def _next_job(
    queue: Sequence[Sequence[PlannedRun]], running: Sequence[StartedJob], free: int
) -> Sequence[PlannedRun] | None:
    """Return the first job that waits for no other, if there is room for its processes."""
    unfinished = {run.config.name for job in queue for run in job}
    unfinished.update(run.config.name for job in running for run in job.runs)
    for job in queue:
        if not any(name in unfinished for run in job for name in run.after):
            return job if job[0].config.parallel.processes <= free else None
    return None


def _let_go(running: list[StartedJob]) -> None:
    """Take the jobs that have ended out of `running`."""
    for ended in [job for job in running if job.handle.done()]:
        running.remove(ended)
        close_job(ended)
