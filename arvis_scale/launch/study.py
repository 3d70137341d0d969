"""A study file: a grid of runs over objective, model size, data size and anything else that a run's config holds.

schema_version: 1
name: demo
base: digits                    # a recipe, or a YAML file beside this one
set: {samples_seen: 20000}      # keys of every run
axes:                           # every combination is a run
  objective: [xtra, aim]
  preset: [nano, micro]
  unique_images: [100, 1000]
points:                         # further runs, one by one
  - {objective: digpt, preset: micro, unique_images: 1000, parallel.processes: 2}
rules:                          # keys that follow from another key's value
  preset:
    nano: {optimizer.learning_rate: 3e-3}
references: true                # raw pixels, and the untrained encoder of every objective and preset
launch: {executor: local, max_parallel: 2, runs_per_job: 6, timeout_hours: 24}
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from arvis_scale.atomic import check_schema, write_text
from arvis_scale.config import RunConfig, build_config, load_yaml, parse_override, recipe_path, suggestion

SCHEMA_VERSION = 1
EXECUTORS = ("local",)


@dataclass
class LaunchConfig:
    """How the runs are started."""

    # local: submitit's executor on this machine.
    executor: str = "local"
    # Training processes at once, over all jobs.
    max_parallel: int = 1
    # Short runs that share one job, one after the other: starting DeepSpeed costs about as long as a small run.
    runs_per_job: int = 1
    # Time limit of a job, in hours.
    timeout_hours: float = 24.0


@dataclass
class StudyConfig:
    """The keys of a study file."""

    schema_version: int = SCHEMA_VERSION
    name: str = "???"
    base: str = "???"
    set: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    points: list[dict[str, Any]] = field(default_factory=list)
    rules: dict[str, Any] = field(default_factory=dict)
    references: bool = True
    launch: LaunchConfig = field(default_factory=LaunchConfig)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study."""

    # "train" (the untrained reference is a run of no steps) or "raw_pixels".
    kind: str
    config: RunConfig


@dataclass(frozen=True)
class Study:
    """A study file read, its runs expanded and every one of their configurations validated."""

    name: str
    output: Path
    launch: LaunchConfig
    runs: tuple[PlannedRun, ...]
    # The study's own YAML with the overrides in it, as written to OUTPUT/study.yaml.
    text: str


def load_study(path: Path, output: Path | None, overrides: Sequence[str] = ()) -> Study:
    """Read a study file, with `key=value` overrides of every run's config, and expand it into runs.

    `output` is the study folder, by default `runs/NAME`. Raises `ValueError` naming the file and the key.
    """
    values = load_yaml(path)
    changes = dict(map(parse_override, overrides))
    values["set"] = {**(values.get("set") or {}), **changes}
    study = _typed(values, path)
    base_path = path.parent / study.base if study.base.endswith((".yaml", ".yml")) else recipe_path(study.base)
    base = load_yaml(base_path)
    folder = output or Path("runs") / study.name
    points = [*_grid(study.axes, path), *study.points]
    if not points:
        raise ValueError(f"{path}: axes and points are both empty; there is nothing to run")
    runs = [_planned(study, base, point, folder, str(path)) for point in points]
    if study.references:
        runs.extend(_references(study, base, points, folder, str(path)))
    _check_names(runs, path)
    text = yaml.safe_dump(values, sort_keys=False)
    return Study(study.name, folder, study.launch, tuple(runs), text)


def save_study(study: Study) -> None:
    """Write OUTPUT/study.yaml; `ValueError` when the folder holds another study."""
    file = study.output / "study.yaml"
    if file.exists():
        before = load_yaml(file)
        if before.get("name") != study.name:
            raise ValueError(f"{study.output} holds the study {before.get('name')!r}; choose another --output")
    write_text(file, study.text)


def _typed(values: dict[str, Any], path: Path) -> StudyConfig:
    schema = OmegaConf.structured(StudyConfig)
    known = [str(key) for key in schema]
    for key in values:
        if key not in known:
            raise ValueError(f"{path}: unknown key {key!r}{suggestion(str(key), known)}")
    try:
        study = OmegaConf.to_object(OmegaConf.merge(schema, values))
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error
    assert isinstance(study, StudyConfig)
    check_schema(path, study.schema_version, SCHEMA_VERSION)
    if study.launch.executor not in EXECUTORS:
        raise ValueError(f"{path}: launch.executor={study.launch.executor!r} is not one of {', '.join(EXECUTORS)}")
    for key in ("max_parallel", "runs_per_job"):
        if getattr(study.launch, key) < 1:
            raise ValueError(f"{path}: launch.{key}={getattr(study.launch, key)} must be at least 1")
    return study


def _grid(axes: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"{path}: axes.{key} must be a list of values, not {values!r}")
    if not axes:
        return []
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _planned(
    study: StudyConfig, base: Mapping[str, Any], point: Mapping[str, Any], folder: Path, source: str
) -> PlannedRun:
    keys = _with_rules(study, point)
    name = _run_name({**base, **keys}, point)
    overrides = {**keys, "name": name, "output": str(folder / "runs" / name)}
    return PlannedRun("train", build_config(base, overrides, f"{source}, run {name}"))


def _with_rules(study: StudyConfig, point: Mapping[str, Any]) -> dict[str, Any]:
    """Return `set`, then the rules that the run's values call for, then the point itself: the last word wins."""
    keys = {**study.set, **point}
    ruled: dict[str, Any] = {}
    for key, by_value in study.rules.items():
        ruled.update(by_value.get(str(keys.get(key)), {}))
    return {**study.set, **ruled, **point}


_NAMED = ("objective", "preset", "unique_images", "samples_seen", "seed")
# How a run is spread changes none of its numbers, so it is not in its name either.
_UNNAMED = ("micro_batch_size", "parallel.", "log.", "data.num_workers")


def _run_name(keys: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    """Return e.g. `xtra-micro-u250-n20000-s0`; the point's other keys follow as `-key_value`."""
    images = keys.get("unique_images")
    parts = [
        str(keys.get("objective")),
        str(keys.get("preset")),
        f"u{'all' if images is None else images}",
        f"n{keys.get('samples_seen')}",
        f"s{keys.get('seed', 0)}",
    ]
    parts += [
        f"{key.rsplit('.', 1)[-1]}_{value}" for key, value in point.items() if not key.startswith(_NAMED + _UNNAMED)
    ]
    return "-".join(parts).replace("/", "_").replace(" ", "")


def _references(
    study: StudyConfig, base: Mapping[str, Any], points: Sequence[Mapping[str, Any]], folder: Path, source: str
) -> list[PlannedRun]:
    """Return one untrained run per objective and preset, and one on raw pixels."""
    first_of: dict[tuple[Any, Any], Mapping[str, Any]] = {}
    for point in points:
        keys = {**base, **_with_rules(study, point)}
        first_of.setdefault((keys.get("objective"), keys.get("preset")), point)
    runs = []
    for (objective, preset), point in first_of.items():
        name = f"untrained-{objective}-{preset}"
        keys = {
            **_with_rules(study, point),
            "unique_images": None,
            "samples_seen": 0,
            "parallel.processes": 1,
            "parallel.strategy": "zero1",
            "name": name,
            "output": str(folder / "runs" / name),
        }
        runs.append(PlannedRun("train", build_config(base, keys, f"{source}, run {name}")))
    pixels = {**keys, "name": "raw-pixels", "output": str(folder / "runs" / "raw-pixels")}
    return [*runs, PlannedRun("raw_pixels", build_config(base, pixels, f"{source}, run raw-pixels"))]


def _check_names(runs: Sequence[PlannedRun], path: Path) -> None:
    seen: set[str] = set()
    for run in runs:
        if run.config.name in seen:
            raise ValueError(
                f"{path}: two runs are named {run.config.name}; axes and points must not repeat each other"
            )
        seen.add(run.config.name)
