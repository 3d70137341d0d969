"""From the axes and points of a study to its runs, each with a readable name and a validated config."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from arvis_scale.config import ConfigBuilder, RunConfig, flat_keys, leaves_of
from arvis_scale.launch.studies.exclusion import Exclusion
from arvis_scale.launch.studies.names import NAMED, joined_name
from arvis_scale.launch.studies.resources import PREFIX, Resources, resources_of
from arvis_scale.launch.studies.rules import check_rules_occur, ruled_keys, values_of
from arvis_scale.launch.studies.study_file import StudyConfig


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study."""

    # "train" (the untrained reference is a run of no steps) or "raw_pixels".
    kind: str
    config: RunConfig
    resources: Resources = field(default_factory=Resources)
    # Name of the tune cell that the run belongs to: its own without the tuned keys. None: it is tuned over nothing.
    cell: str | None = None
    # Names of the runs whose jobs must have ended first: a branch's parent, which the engine then checks.
    after: tuple[str, ...] = ()
    # Step that it begins with: of a branch the one that it takes over from its parent.
    first_step: int = 0


@dataclass(frozen=True)
class _Point:
    """The keys of one run that its axes or its entry of `points` give, and which of them are tuned."""

    keys: dict[str, Any]
    tuned: frozenset[str]
    # Its entry of `points`, from 0; None: a combination of the axes.
    number: int | None = None


def expand(study: StudyConfig, base: Mapping[str, Any], folder: Path, path: Path) -> list[PlannedRun]:
    """Return the runs of the study at `path`, in its order, their folders below `folder`.

    A run's keys are the base's, then `set`, then what the rules give for these and the point's values, then the point's
    own: the last word wins. Raises `ValueError` naming the file and the key.
    """
    builder = ConfigBuilder(base)
    exclusion = Exclusion(study.exclude, path)
    before_rules = {**leaves_of(RunConfig()), **flat_keys(base), **study.set}
    found: dict[str, dict[tuple[Any, ...], None]] = {key: {} for key in study.rules}
    axes = [*study.axes.items(), *study.tune.items()]
    axis_keys = {dotted for key, options in axes for option in options for dotted in flat_keys({key: option})}
    runs = []
    for point in _points(study, path):
        values = {**before_rules, **point.keys}
        for rule, seen in found.items():
            seen[tuple(map(_hashable, values_of(rule, values)))] = None
        keys = {**study.set, **ruled_keys(study.rules, values), **point.keys}
        named = [key for key in point.keys if _is_named(key, axis_keys)]
        run, values = _planned(builder, keys, point, named, folder, f"{path}, run {joined_name(point.keys)}")
        if not exclusion.leaves_out(values, point.number):
            runs.append(_validated(run, path))
    exclusion.check_all_matched(num_left=len(runs))
    check_rules_occur(study.rules, found, path)
    return runs


def _points(study: StudyConfig, path: Path) -> Iterator[_Point]:
    """Yield the combinations of the axes, then the points, each with every combination of what is tuned.

    A point that gives a tuned key itself is not tuned over it.
    """
    if not study.axes and not study.points:
        raise ValueError(f"{path}: axes and points are both empty; there is nothing to run")
    tunings = list(_grid(study.tune))
    for point in _grid(study.axes) if study.axes else ():
        for tuning in tunings:
            yield _Point({**point, **tuning}, frozenset(tuning))
    for number, given in enumerate(study.points):
        open_axes = {key: values for key, values in study.tune.items() if key not in given}
        for tuning in _grid(open_axes):
            yield _Point({**given, **tuning}, frozenset(tuning), number)


def _grid(axes: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*axes.values()):
        yield flat_keys(dict(zip(axes, values, strict=True)))


def _planned(
    builder: ConfigBuilder, keys: Mapping[str, Any], point: _Point, named: Collection[str], folder: Path, source: str
) -> tuple[PlannedRun, dict[str, Any]]:
    """Return the run of one point, not validated yet since it may be left out, and the values of its configuration."""
    own = {key: value for key, value in keys.items() if not key.startswith(PREFIX)}
    config = builder.assemble({**own, "name": "", "output": ""}, source)
    values = {**point.keys, **leaves_of(config)}  # keys below parallel.deepspeed are in the first alone
    name = _run_name(values, named)
    cell = _run_name(values, [key for key in named if key not in point.tuned], point.tuned) if point.tuned else None
    placed = replace(config, name=name, output=str(folder / "runs" / name))
    return PlannedRun("train", placed, resources_of(keys, source), cell), values


def _validated(run: PlannedRun, path: Path) -> PlannedRun:
    try:
        run.config.validate()
    except ValueError as error:
        raise ValueError(f"{path}, run {run.config.name}: {error}") from error
    return run


# How a run is spread changes none of its numbers, so it is in its name only where it is an axis.
_UNNAMED = ("micro_batch_size", "parallel.", "checkpoints.", "log.", "data.num_workers")


def _is_named(key: str, axis_keys: set[str]) -> bool:
    return not key.startswith(PREFIX) and (key in axis_keys or not key.startswith(_UNNAMED))


def _run_name(values: Mapping[str, Any], keys: Collection[str], without: Collection[str] = ()) -> str:
    """Return e.g. `xtra-micro-u250-n20000-s0`; the point's other `keys` follow as `-key_value`."""
    named = {key: values[key] for key in dict.fromkeys((*NAMED, *keys)) if key not in (*without, "method")}
    return joined_name({**named, "objective": values["method"] or named["objective"]})


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else repr(value)
