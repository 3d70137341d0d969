"""Teacher tokens that a study's runs replay and nobody has stored yet: a first job makes them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from arvis_scale.config import RunConfig
from arvis_scale.data.token_manifest import read_manifest
from arvis_scale.engine.exit_status import PREEMPTED
from arvis_scale.engine.preemption import PreemptionFlag
from arvis_scale.launch.jobs.requeue import requeue_this_job
from arvis_scale.launch.studies.expansion import PlannedRun
from arvis_scale.launch.studies.study import Study

if TYPE_CHECKING:
    from arvis_scale.engine.tokenize import Tokenization

_PRECISION = "fp16"


def tokens_to_make(study: Study, runs: Iterable[PlannedRun]) -> dict[str, PlannedRun]:
    """Return the token folders that some of `runs` name and that are not complete, each with the run to make it for.

    Empty without `launch.token_views`. Of several runs, that with the most images: its tokens serve all of them.
    """
    if study.launch.token_views is None:
        return {}
    chosen: dict[str, PlannedRun] = {}
    for run in runs:
        folder = token_folder(run.config)
        if folder is None or (folder not in chosen and _is_complete(Path(folder))):
            continue
        if folder not in chosen or _num_images(run.config) > _num_images(chosen[folder].config):
            chosen[folder] = run
    return chosen


def token_folder(config: RunConfig) -> str | None:
    """Return the folder whose tokens a run replays; None for a run that has none."""
    return config.teacher.tokens if config.objective == "digpt" else None


def with_teacher(config: RunConfig) -> RunConfig:
    """Return `config` with its teacher itself in place of the stored tokens."""
    return replace(config, teacher=replace(config.teacher, tokens=None))


@dataclass(frozen=True)
class TokenizeTask:
    """Store the tokens of the teacher and images of `config` in `folder`, or what is missing of them."""

    directory: str
    config: RunConfig
    folder: str
    views: int
    # Whether it is a Slurm job, which goes back into the queue when it is told to stop.
    can_requeue: bool

    def __call__(self) -> str:
        """Store them and return the folder; raises `SystemExit` when a signal told it to stop."""
        from arvis_scale.engine.tokenize import tokenize

        os.chdir(self.directory)
        with PreemptionFlag() as stop:

            def leave_when_told(part: str, done: int, total: int | None) -> None:
                if stop.raised_by:
                    if self.can_requeue:
                        requeue_this_job()
                    raise SystemExit(PREEMPTED)

            tokenize(_plan(self.config, self.folder, self.views), leave_when_told)
        return self.folder


def tokenize_task(study: Study, folder: str, run: PlannedRun, *, can_requeue: bool = False) -> TokenizeTask:
    """Return what the process of a first job calls, submitted from here."""
    assert study.launch.token_views is not None, "else there is no such job"
    return TokenizeTask(str(Path.cwd()), run.config, folder, study.launch.token_views, can_requeue)


def check_token_size(study: Study, folder: str, run: PlannedRun) -> None:
    """Raise `ValueError` when the tokens of `folder`, made for `run`, would be larger than the study allows."""
    assert study.launch.token_views is not None, "else there is no such job"
    gigabytes = _plan(run.config, folder, study.launch.token_views).manifest.num_bytes / 1e9
    if gigabytes > study.launch.max_token_gb:
        raise ValueError(
            f"teacher.tokens={folder} would take {gigabytes:,.3g} GB, more than launch.max_token_gb="
            f"{study.launch.max_token_gb:g}; raise that, or lower launch.token_views or unique_images"
        )


def _plan(config: RunConfig, folder: str, views: int) -> Tokenization:
    from arvis_scale.engine.tokenize import plan_tokenization  # brings torch

    return plan_tokenization(with_teacher(config), views=views, precision=_PRECISION, folder=Path(folder))


def _num_images(config: RunConfig) -> float:
    return float("inf") if config.unique_images is None else config.unique_images


def _is_complete(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir()) and read_manifest(folder).is_complete
