"""Starts again what did not complete of a study: what failed, was lost, cancelled or never begun."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from arvis_scale.engine.checkpointing.files import newest_step
from arvis_scale.engine.exit_status import OUT_OF_MEMORY, STOPPED_BY_GUARD
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.named_runs import check_run_names
from arvis_scale.launch.studies.expansion import PlannedRun
from arvis_scale.launch.studies.study import STUDY_NAME, Study, load_study
from arvis_scale.launch.submit import Submission, submit
from arvis_scale.launch.sweep_file import read_sweep


@dataclass(frozen=True)
class Resumed:
    """What `resume` did."""

    submission: Submission | None
    # Runs that were given up and not asked for, by name.
    given_up: list[str]


def resume(folder: Path, command: Sequence[str], names: Sequence[str] = (), *, also_given_up: bool = False) -> Resumed:
    """Submit the runs of the study in `folder` that did not complete and on which nothing works; `names` chooses some.

    Runs that were given up would fail again as they are: they are started when they are named, or with
    `also_given_up`. Raises `ValueError` for a name that the study does not have, and what `submit` raises.
    """
    read_sweep(folder)  # says so where this is no study folder
    study = load_study(folder / STUDY_NAME, folder)
    runs = {run.config.name: run for run in study.runs}
    check_run_names(folder, names, runs)
    unfinished = [name for name in names or runs if RunFolder(runs[name].config.output).status().state != "completed"]
    given_up = [] if names or also_given_up else [name for name in unfinished if is_given_up(runs[name], study)]
    # What goes on from a run that is not tried again cannot go on either.
    left_out = _with_descendants(given_up, study.runs)
    chosen = _with_ancestors([name for name in unfinished if name not in left_out], runs)
    return Resumed(submit(study, command, only=chosen) if chosen else None, given_up)


def is_given_up(run: PlannedRun, study: Study) -> bool:
    """Return whether a run failed in a way that its jobs did not try, or ceased to try, to get over.

    A guard stopped it, it ran out of memory with half its micro batch, or `launch.max_attempts` starts brought no
    new checkpoint. A configuration that was refused is not among them: that is what one mends before resuming.
    """
    folder = RunFolder(run.config.output)
    status = folder.status()
    if status.state != "failed":
        return False
    if status.exit_status in (STOPPED_BY_GUARD, OUT_OF_MEMORY):
        return True
    return status.starts_without_progress(newest_step(folder.checkpoints)) >= study.launch.max_attempts


def _with_descendants(names: Iterable[str], runs: Sequence[PlannedRun]) -> set[str]:
    found = set(names)
    while grown := {run.config.name for run in runs if found.intersection(run.after)} - found:
        found |= grown
    return found


def _with_ancestors(names: Iterable[str], runs: dict[str, PlannedRun]) -> set[str]:
    found = set(names)
    while grown := {name for each in found for name in runs[each].after if name in runs} - found:
        found |= grown
    return found
