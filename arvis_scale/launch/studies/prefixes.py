"""Runs that differ in length alone are trained once: the longest keeps a checkpoint where each of the others branches.

Only with a warmup_stable_decay schedule whose warm-up is given in images do runs of different lengths have the same
learning rates up to their cool-downs (docs/branching.md). A branch ends with the weights, bit for bit, that it would
have had alone, so that nothing but the cost of a study depends on this.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from arvis_scale.config import RunConfig, load_yaml
from arvis_scale.engine.checkpointing.branching import last_shared_step
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.studies.expansion import PlannedRun


@dataclass(frozen=True)
class _Begun:
    """What a run that was submitted before does, whatever the study says now."""

    # Folder that it branches from; None: from none.
    parent: str | None
    # Steps whose checkpoints it keeps for branches.
    kept: tuple[int, ...]


def share_prefixes(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Return the runs in their order, those that can made branches of a longer one, and that one to keep what it must.

    Runs whose folder has a config.yaml stay what they are: new runs branch from them where they keep a checkpoint for
    it.
    """
    groups: dict[str, list[PlannedRun]] = defaultdict(list)
    for run in runs:
        if _can_share(run):
            alike = replace(run.config, name="", output="", samples_seen=0)
            groups[f"{run.resources} {alike}"].append(run)
    changed = {}
    for group in groups.values():
        if len(group) > 1:
            changed.update({run.config.name: run for run in _shared(group)})
    return [changed.get(run.config.name, run) for run in runs]


def _can_share(run: PlannedRun) -> bool:
    config = run.config
    is_stable = config.optimizer.schedule == "warmup_stable_decay" and config.optimizer.warmup_samples is not None
    return run.kind == "train" and is_stable and config.parent is None and _start(config) > 0


def _start(config: RunConfig) -> int:
    return config.optimizer.cooldown_start(config.num_steps)


def _shared(group: list[PlannedRun]) -> list[PlannedRun]:
    """Return the runs of one prefix, each as a parent, a branch, or as it is."""
    longest_first = sorted(group, key=lambda run: run.config.num_steps, reverse=True)
    begun = {run.config.name: before for run in longest_first if (before := _begun(run)) is not None}
    parents = {run.config.name: run for run in longest_first if run.config.name in begun}
    kept = {name: before.kept for name, before in begun.items()}
    fresh = [run for run in longest_first if run.config.name not in begun and not _parent_of(run, parents, kept)]
    if len(fresh) > 1:
        parent = fresh[0]
        steps = {last_shared_step(run.config, parent.config) for run in fresh}
        parents[parent.config.name] = parent
        kept[parent.config.name] = tuple(sorted(steps))
    done = []
    for run in longest_first:
        name = run.config.name
        if name in begun:
            chosen = parents.get(Path(begun[name].parent or "").name)
        else:
            chosen = None if name in kept else _parent_of(run, parents, kept)
        placed = _as_branch(run, chosen, kept) if chosen else run
        done.append(_keeping(placed, kept.get(name, ())))
    return done


def _parent_of(run: PlannedRun, parents: dict[str, PlannedRun], kept: dict[str, tuple[int, ...]]) -> PlannedRun | None:
    """Return the run of `parents` that saves `run` most steps; None where none saves any."""
    able = [parent for name, parent in parents.items() if _first_step(run, parent, kept[name])]
    return max(able, key=lambda parent: _first_step(run, parent, kept[parent.config.name]), default=None)


def _first_step(run: PlannedRun, parent: PlannedRun, kept: Sequence[int]) -> int:
    last = last_shared_step(run.config, parent.config)
    return max((step for step in kept if step <= last), default=0)


def _as_branch(run: PlannedRun, parent: PlannedRun, kept: dict[str, tuple[int, ...]]) -> PlannedRun:
    return replace(
        run,
        config=replace(run.config, parent=parent.config.output),
        after=(parent.config.name,),
        first_step=_first_step(run, parent, kept[parent.config.name]),
    )


def _keeping(run: PlannedRun, steps: Sequence[int]) -> PlannedRun:
    if not steps:
        return run
    kept = sorted({*run.config.checkpoints.also_at, *steps})
    return replace(run, config=replace(run.config, checkpoints=replace(run.config.checkpoints, also_at=kept)))


def _begun(run: PlannedRun) -> _Begun | None:
    config = RunFolder(run.config.output).config
    if not config.is_file():
        return None
    values = load_yaml(config)
    return _Begun(values.get("parent"), tuple((values.get("checkpoints") or {}).get("also_at") or ()))
