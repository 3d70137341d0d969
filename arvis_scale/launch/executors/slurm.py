"""Jobs of a Slurm cluster, through submitit: arrays of jobs with equal requests, each after those it depends on."""

from __future__ import annotations

import logging
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError

from arvis_scale.config import ParallelConfig
from arvis_scale.launch.executors.executor import Notes
from arvis_scale.launch.executors.profiles import ClusterProfile
from arvis_scale.launch.executors.requests import Request, report_request, request_of
from arvis_scale.launch.executors.task import ReportTask, is_report_missing, train_task
from arvis_scale.launch.executors.token_jobs import token_folder, tokenize_task, tokens_to_make
from arvis_scale.launch.jobs.bad_nodes import bad_nodes
from arvis_scale.launch.jobs.requeue import DEAF
from arvis_scale.launch.slurm_jobs import job_states
from arvis_scale.launch.studies.expansion import PlannedRun
from arvis_scale.launch.studies.study import Study
from arvis_scale.launch.sweep_file import read_sweep

# How long a cancelled job may take to save.
SAVE_SECONDS = 60.0
_POLL_SECONDS = 1.0
_logger = logging.getLogger(__name__)
_Job = Sequence[PlannedRun]


class SlurmExecutor:
    """Submits a study's jobs to the cluster that `profile` describes, and leaves them to it."""

    waits = False

    def __init__(self, profile: ClusterProfile, cluster: str) -> None:
        self._profile = profile
        self._cluster = cluster

    def check(self, study: Study) -> None:
        """See `Executor.check`; Slurm itself says whether it could ever grant what the runs ask for."""
        for command in ("sbatch", "srun", "squeue"):
            if shutil.which(command) is None:
                raise ValueError(
                    f"launch.executor=slurm: {command} is not on the PATH; submit where Slurm's commands are, or take "
                    f"launch.executor=local"
                )
        for tag in ("%A", "%a", "%j", "%t", "\n"):
            if tag in str(study.output.absolute()):
                raise ValueError(f"{study.output.absolute()}: submitit takes {tag!r} in a path for something else")
        requests: dict[Request, str] = {}
        for run in study.runs:
            try:
                requests.setdefault(request_of(run, self._profile, study.launch.timeout_hours), run.config.name)
            except ValueError as error:
                raise ValueError(f"launch.cluster={self._cluster}: {error}") from error
        for request, name in requests.items():
            refusal = _refusal(self._sbatch(study, request, None, is_array=False))
            if refusal:
                raise ValueError(f"launch.cluster={self._cluster}: sbatch would refuse run {name}: {refusal}")

    def run(self, study: Study, snapshot: Path, jobs: Sequence[_Job], notes: Notes) -> None:
        """See `Executor.run`; returns when all are submitted."""
        if not jobs and not is_report_missing(study):
            return
        earlier = read_sweep(study.output)
        reports = [earlier.report_job] if earlier.report_job is not None else []
        living = self.living([*earlier.jobs.values(), *earlier.token_jobs.values(), *reports])
        given = {name: job for name, job in earlier.jobs.items() if job in living}
        after = set(given.values())
        makers = {folder: job for folder, job in earlier.token_jobs.items() if job in living}
        makers.update(self._submit_tokenization(study, snapshot, jobs, makers, notes))
        num_queued = 0
        for request, group in _groups(study, jobs, self._profile):
            before = [_jobs_before(job, given, makers) for job in group]
            dependency = _after(_whole(before), makers)
            executor = self._sbatch(study, request, snapshot, is_array=len(group) > 1, dependency=dependency)
            numbers = _submitted(executor, [train_task(study, job) for job in group], num_queued)
            mine = {run.config.name: number for number, job in zip(numbers, group, strict=True) for run in job}
            notes.runs(mine)
            given.update(mine)
            _wait_for_own_parents(numbers, before, makers)
            after.add(numbers[0].partition("_")[0])
            num_queued += len(numbers)
        if study.launch.report and (jobs or not living.intersection(reports)):
            _scancel(list(living.intersection(reports)))  # it would come before these jobs have ended
            self._submit_report(study, snapshot, after, notes)

    def _submit_tokenization(
        self, study: Study, snapshot: Path, jobs: Sequence[_Job], living: Collection[str], notes: Notes
    ) -> dict[str, str]:
        """Submit a job for every token folder that `jobs` need, is not complete and has none of the `living` jobs.

        Returns them by their folders.
        """
        makers = {}
        for folder, run in tokens_to_make(study, (run for job in jobs for run in job)).items():
            if folder in living:
                continue
            alone = replace(run, config=replace(run.config, parallel=ParallelConfig()))
            request = request_of(alone, self._profile, study.launch.timeout_hours)
            executor = self._sbatch(study, request, snapshot, is_array=False)
            makers[folder] = _submitted(executor, [tokenize_task(study, folder, run, can_requeue=True)])[0]
            notes.tokens(folder, makers[folder])
        return makers

    def _submit_report(self, study: Study, snapshot: Path, after: Iterable[str], notes: Notes) -> None:
        asked = request_of(study.runs[0], self._profile, study.launch.timeout_hours)
        request = report_request(asked, self._profile)
        executor = self._sbatch(study, request, snapshot, is_array=False, dependency=_after(after))
        notes.report(_submitted(executor, [ReportTask(str(Path.cwd()), str(study.output))])[0])

    def living(self, jobs: Iterable[str]) -> set[str]:
        """See `Executor.living`. Raises `OSError` when Slurm does not answer."""
        return {job for job, state in job_states(jobs).items() if state.is_living}

    def cancel(self, jobs: Iterable[str]) -> None:
        """See `Executor.cancel`. Raises `OSError` when Slurm does not answer.

        Slurm itself leaves a cancelled job `KillWait` seconds, half a minute as a rule, which a save may exceed.
        """
        states = job_states(jobs)
        running = [job for job, state in states.items() if state.is_running]
        _scancel([job for job, state in states.items() if state.is_waiting])
        _scancel(running, "--signal=USR2")
        deadline = time.monotonic() + SAVE_SECONDS
        while (living := self.living(running)) and time.monotonic() < deadline:
            _scancel([job for job, state in job_states(living).items() if state.is_waiting])  # one that went back
            time.sleep(_POLL_SECONDS)
        _scancel(list(living))

    def _sbatch(
        self, study: Study, request: Request, snapshot: Path | None, *, is_array: bool, dependency: str = ""
    ) -> submitit.SlurmExecutor:
        """Return submitit's executor for jobs that ask for `request`, from `snapshot`, after sbatch's `dependency`."""
        profile, logs = self._profile, study.output / "logs"
        python = profile.python or shlex.quote(sys.executable)
        # A task that starts must not die of a preemption's signal, which would end its job as failed, not as requeued.
        starts = " ".join(filter(None, [shlex.join(DEAF), profile.container, python]))
        executor = submitit.SlurmExecutor(logs, python=starts)
        # Slurm reads %-signs in --output, of which a folder's name may have some: it lies relative to the snapshot.
        log = f"../../logs/{'%A_%a' if is_array else '%j'}_%t_log.out"
        further: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes", "output": log.replace("%t", "0")}
        further.update(profile.sbatch)
        excluded = [str(further.pop("exclude"))] if "exclude" in further else []
        if snapshot is not None:
            further["chdir"] = str(snapshot.absolute())
        srun_args = ["--output", log, "--kill-on-bad-exit=1"]
        if request.cpus_per_process is not None:
            srun_args.append(f"--cpus-per-task={request.cpus_per_process}")  # which srun does not take from its job
        executor.update_parameters(
            **{key: value for key, value in request.sbatch_parameters().items() if value is not None},
            job_name=study.name,
            account=profile.account,
            qos=profile.qos,
            wckey=None,
            exclude=",".join([*excluded, *bad_nodes(study.output)]) or None,
            dependency=dependency or None,
            array_parallelism=min(profile.array_parallelism, study.launch.max_parallel or profile.array_parallelism),
            signal_delay_s=profile.signal_seconds,
            setup=[
                *profile.setup,
                *(f"export {key}={shlex.quote(str(value))}" for key, value in profile.environment.items()),
            ],
            stderr_to_stdout=True,
            srun_args=srun_args,
            additional_parameters=further,
        )
        return executor


def _jobs_before(job: _Job, given: Mapping[str, str], makers: Mapping[str, str]) -> set[str]:
    """Return the jobs of the runs that `job` comes after, and those that make its teacher tokens."""
    parents = {given[name] for run in job for name in run.after if name in given}
    folders = {token_folder(run.config) for run in job}
    return parents | {maker for folder, maker in makers.items() if folder in folders}


def _after(jobs: Iterable[str], makers: Mapping[str, str] | None = None) -> str:
    """Return sbatch's dependency on the end of all `jobs`.

    Of runs on any end, as the engine looks at what they left; of the `makers` of teacher tokens on a good one alone.
    """
    kinds: dict[str, list[str]] = {}
    for job in sorted(jobs):
        kinds.setdefault("afterok" if job in (makers or {}).values() else "afterany", []).append(job)
    return ",".join(f"{kind}:{':'.join(numbers)}" for kind, numbers in sorted(kinds.items()))


def _whole(jobs: Iterable[set[str]]) -> set[str]:
    """Return the numbers of all `jobs` together, of a task of an array the array's."""
    return {job.partition("_")[0] for some in jobs for job in some}


def _wait_for_own_parents(jobs: Sequence[str], before: Sequence[set[str]], makers: Mapping[str, str]) -> None:
    """Let each of `jobs`, submitted to wait for whole arrays, wait for its own jobs in `before` alone."""
    lines = [
        f"update JobId={job} Dependency={_after(parents, makers)}"
        for job, parents in zip(jobs, before, strict=True)
        if parents != _whole(before)
    ]
    if lines:  # one call for all, which goes on after an error; a job that has begun waits for nothing any more
        done = subprocess.run(["scontrol"], input="\n".join(lines), text=True, capture_output=True, check=False)
        if done.returncode != 0:
            _logger.warning(
                "some jobs wait for all parents, not for their own alone: %s", " ".join(done.stderr.split())
            )


def _groups(study: Study, jobs: Sequence[_Job], profile: ClusterProfile) -> Iterator[tuple[Request, list[_Job]]]:
    """Yield jobs with equal requests that wait for equally many before them, as many as an array may hold at most."""
    place: dict[str, int] = {}
    groups: dict[tuple[int, Request], list[_Job]] = {}
    for job in jobs:
        stage = max((place[name] + 1 for run in job for name in run.after if name in place), default=0)
        place.update({run.config.name: stage for run in job})
        request = request_of(job[0], profile, study.launch.timeout_hours)
        groups.setdefault((stage, request), []).append(job)
    largest = max_array_size()
    for (_, request), group in sorted(groups.items(), key=lambda item: item[0][0]):
        for start in range(0, len(group), largest):
            yield request, group[start : start + largest]


def _scancel(jobs: Sequence[str], *options: str) -> None:
    if jobs:  # without any, it takes all of the user's
        subprocess.run(["scancel", *options, *jobs], check=False)


def max_array_size() -> int:
    """Return how many jobs an array of this cluster may hold."""
    shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False)
    if shown.returncode:
        raise ValueError(f"scontrol show config: {_last_line(shown.stderr)}")
    sizes = [line.partition("=")[2] for line in shown.stdout.splitlines() if line.startswith("MaxArraySize")]
    assert len(sizes) == 1, "every version of Slurm shows it"
    return max(1, int(sizes[0]) - 1)  # it bounds the numbers, which begin at 0


def _submitted(executor: submitit.SlurmExecutor, tasks: Sequence[Any], num_queued: int = 0) -> list[str]:
    """Submit `tasks` and return their jobs' numbers; `ValueError` says how many jobs `num_queued` went before."""
    try:
        return [job.job_id for job in executor.submit_array(tasks)]
    except FailedJobError as error:
        before = f"; {num_queued} jobs are queued already, `sweep submit` again adds the rest" if num_queued else ""
        raise ValueError(f"sbatch refused: {_last_line(str(error))}{before}") from error


def _refusal(executor: submitit.SlurmExecutor) -> str:
    """Return why Slurm would not take a job with the executor's parameters; empty when it would."""
    script = executor._make_submission_file_text("true", "")
    finished = subprocess.run(["sbatch", "--test-only"], input=script, capture_output=True, text=True, check=False)
    return _last_line(finished.stderr) if finished.returncode else ""


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it does not say why"])[-1].removeprefix("sbatch: ").removeprefix("error: ")
