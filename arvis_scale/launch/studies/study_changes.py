"""What a study file would change of the study that its folder holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.same_run import differences
from arvis_scale.launch.studies.expansion import PlannedRun
from arvis_scale.launch.studies.study import BASE_NAME, STUDY_NAME, Study, load_study, refuse_other_study

# Names that a line of the difference shows.
_NUM_SHOWN = 5


@dataclass(frozen=True)
class StudyChanges:
    """Runs by name that a study has more, has no more, and has with other keys than before."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    # Of the changed runs, what changed: `optimizer.weight_decay 0.05 -> 0.1`.
    changed: dict[str, str]
    # Runs of the study as it was that have completed.
    num_completed: int

    def lines(self) -> Iterator[str]:
        """Yield the difference, one line per kind."""
        if self.added:
            yield f"{len(self.added)} runs are new: {_some(self.added)}"
        if self.removed:
            yield f"{len(self.removed)} runs are no longer in the study, their folders stay: {_some(self.removed)}"
        for what in dict.fromkeys(self.changed.values()):
            names = [name for name, other in self.changed.items() if other == what]
            yield f"{len(names)} runs change in {what}: {_some(names)}"


def study_changes(study: Study) -> StudyChanges | None:
    """Return what `study` changes of the one that its folder holds; None where it is new or has the same runs.

    What may change between two starts of a run is no change. Raises `ValueError` when the folder holds another study.
    """
    refuse_other_study(study)
    file = study.output / STUDY_NAME
    if not file.exists() or _is_unchanged(study):
        return None
    before = {run.config.name: run for run in load_study(file, study.output).runs}
    now = {run.config.name: run for run in study.runs}
    changed = {name: what for name, run in now.items() if name in before and (what := _difference(before[name], run))}
    added = tuple(name for name in now if name not in before)
    removed = tuple(name for name in before if name not in now)
    if not (added or removed or changed):
        return None
    completed = sum(RunFolder(run.config.output).status().state == "completed" for run in before.values())
    return StudyChanges(added, removed, changed, completed)


def _is_unchanged(study: Study) -> bool:
    """Return whether the folder's copies of the study file and its base are those that would be written now."""
    base = study.output / BASE_NAME
    base_text = base.read_text(encoding="utf-8") if base.exists() else None
    text = (study.output / STUDY_NAME).read_text(encoding="utf-8")
    return text == study.text and (study.base_text is None or base_text == study.base_text)


def _difference(before: PlannedRun, now: PlannedRun) -> str:
    return ", ".join(f"{key} {was} -> {value}" for key, was, value in differences(before.config, now.config))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    return ", ".join(names[:_NUM_SHOWN]) + more
