"""All runs in this process, one after the other: where a debugger can be set on them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from arvis_scale.engine.ports import free_port
from arvis_scale.launch.executors.executor import Notes
from arvis_scale.launch.executors.task import ReportTask
from arvis_scale.launch.executors.token_jobs import tokenize_task, tokens_to_make
from arvis_scale.launch.jobs.worker import do_runs
from arvis_scale.launch.studies.expansion import PlannedRun
from arvis_scale.launch.studies.study import Study


class DebugExecutor:
    """Runs a study's jobs in this process, which is the only one; they have no numbers."""

    waits = True

    def check(self, study: Study) -> None:
        """See `Executor.check`."""
        for run in study.runs:
            if run.config.parallel.processes > 1:
                raise ValueError(
                    f"run {run.config.name} wants parallel.processes={run.config.parallel.processes}, but "
                    f"launch.executor=debug has one process; take launch.executor=local"
                )

    def run(self, study: Study, snapshot: Path, jobs: Sequence[Sequence[PlannedRun]], notes: Notes) -> None:
        """See `Executor.run`."""
        for folder, run in tokens_to_make(study, (run for job in jobs for run in job)).items():
            tokenize_task(study, folder, run)()
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
        os.environ["MASTER_PORT"] = str(free_port())
        do_runs([(run.kind, run.config.output) for job in jobs for run in job])
        if study.launch.report:
            ReportTask(str(Path.cwd()), str(study.output))()

    def living(self, jobs: Iterable[str]) -> set[str]:
        """See `Executor.living`: a run of this process has no job."""
        return set()

    def cancel(self, jobs: Iterable[str]) -> None:
        """See `Executor.cancel`: only Ctrl-C ends it."""
