"""Teacher tokens that a study's runs replay and nobody has stored yet: a first job makes them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from arvis_scale.config import RunConfig
from arvis_scale.data.token_manifest import read_manifest
from arvis_scale.launch.studies.expansion import PlannedRun
from arvis_scale.launch.studies.study import Study

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

    def __call__(self) -> str:
        """Store them and return the folder."""
        from arvis_scale.engine.tokenize import plan_tokenization, tokenize

        os.chdir(self.directory)
        plan = plan_tokenization(
            with_teacher(self.config), views=self.views, precision=_PRECISION, folder=Path(self.folder)
        )
        plan.check_size(confirmed=False)
        tokenize(plan)
        return self.folder


def tokenize_task(study: Study, folder: str, run: PlannedRun) -> TokenizeTask:
    """Return what the process of a first job calls, submitted from here."""
    assert study.launch.token_views is not None, "else there is no such job"
    return TokenizeTask(str(Path.cwd()), run.config, folder, study.launch.token_views)


def _num_images(config: RunConfig) -> float:
    return float("inf") if config.unique_images is None else config.unique_images


def _is_complete(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir()) and read_manifest(folder).is_complete
