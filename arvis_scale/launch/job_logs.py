"""What the processes of a run's job have said: submitit keeps a file per process in the study's `logs/`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.named_runs import check_run_names
from arvis_scale.launch.status.study_status import StudyWatch
from arvis_scale.launch.sweep_file import read_sweep

_POLL_SECONDS = 0.5


class RunLog:
    """The log of one job of a run. Runs that share a job share its log."""

    def __init__(self, folder: Path, name: str, job: str | None = None) -> None:
        """`job`: an earlier one; None: the run's last. Raises `ValueError` where there is no such run, job or log."""
        runs = {run.name: run for run in read_sweep(folder).runs}
        check_run_names(folder, [name], runs)
        run = runs[name]
        ends = RunFolder(folder / "runs" / name).status().ends
        jobs = list(dict.fromkeys([*(end.job for end in ends if end.job), *([run.job] if run.job else [])]))
        if not jobs:
            raise ValueError(f"{name} was given to no job yet: `arvis-scale sweep submit {folder / 'study.yaml'}`")
        if job is not None and job not in jobs:
            raise ValueError(f"{name} had no job {job}; its jobs: {', '.join(jobs)}")
        self._folder, self._name, self._job = folder, name, job or jobs[-1]
        earlier = f"; earlier jobs: {', '.join(jobs[:-1])} (--job)" if job is None and jobs[:-1] else ""
        others = [other.name for other in runs.values() if other.job == self._job and other.name != name]
        shared = f"; shared with {', '.join(others)}" if others else ""
        self.headline = f"job {self._job} of {name}{shared}{earlier}"

    def lines(self, *, follow: bool) -> Iterator[str]:
        """Yield its lines, process by process, those of several with `RANK| ` before them.

        `follow`: as they come, until the run does nothing more. Raises `ValueError` when there is no log to print.
        """
        if not follow:
            files = log_files(self._folder, self._job)
            if not files:
                raise ValueError(f"{self._name}: {self._folder / 'logs'} holds nothing of job {self._job} yet")
            for prefix, file in _prefixed(files):
                with open(file, encoding="utf-8", errors="replace") as text:
                    yield from (prefix + line.rstrip("\n") for line in text)
            return
        watch = StudyWatch(self._folder)
        open_files: dict[Path, _Tail] = {}
        while True:
            # Looked at before the files: what a run writes last is there when it is over.
            is_given_up = RunFolder(self._folder / "runs" / self._name).status().is_given_up
            is_over = watch.look().is_run_over(self._name, is_given_up=is_given_up)
            for prefix, file in _prefixed(log_files(self._folder, self._job)):
                tail = open_files.setdefault(file, _Tail(file))
                yield from (prefix + line for line in tail.new_lines())
            if is_over:
                return
            time.sleep(_POLL_SECONDS)


def log_files(folder: Path, job: str) -> list[Path]:
    """Return the logs of a job's processes in the order of their ranks: `logs/12_3_0_log.out` is rank 0's of 12_3."""
    found = []
    for file in (folder / "logs").glob(f"{job}_*_log.*"):
        parts = re.fullmatch(rf"{re.escape(job)}_(\d+)_log\.(out|err)", file.name)
        if parts:
            found.append((int(parts[1]), parts[2] == "err", file))
    return [file for *_, file in sorted(found)]


def _prefixed(files: Sequence[Path]) -> list[tuple[str, Path]]:
    ranks = [file.name.rsplit("_", 2)[1] for file in files]
    return [("" if len(set(ranks)) == 1 else f"{rank}| ", file) for rank, file in zip(ranks, files, strict=True)]


class _Tail:
    """What comes to stand at the end of a file, in whole lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new_lines(self) -> list[str]:
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode("utf-8", errors="replace").splitlines()
