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
references: true                # raw pixels, and every untrained encoder of the study
launch: {executor: local, max_parallel: 2, runs_per_job: 6, timeout_hours: 24}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from arvis_scale.atomic import check_schema
from arvis_scale.config import RunConfig, load_yaml, parse_override, recipe_path, suggestion

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
    """The keys of a study file. Keys of a run are dotted in `set`, `axes`, `points` and in what `rules` give."""

    schema_version: int = SCHEMA_VERSION
    name: str = "???"
    base: str = "???"
    set: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    points: list[dict[str, Any]] = field(default_factory=list)
    # Key -> its value, as YAML reads it -> keys.
    rules: dict[str, dict[Any, dict[str, Any]]] = field(default_factory=dict)
    references: bool = True
    launch: LaunchConfig = field(default_factory=LaunchConfig)


def read_study_file(path: Path, overrides: Sequence[str] = ()) -> tuple[StudyConfig, dict[str, Any]]:
    """Return a study file's keys, typed, and its YAML values with the overrides in them.

    An override `launch.KEY=VALUE` changes the study's launch section, any other one `set`. Raises `ValueError` naming
    the file and the key.
    """
    values = load_yaml(path)
    known = [str(key) for key in OmegaConf.structured(StudyConfig)]
    for key in values:
        if key not in known:
            raise ValueError(f"{path}: unknown key {key!r}{suggestion(str(key), known)}")
    axes = _section(values, "axes", dict, path)
    for key, value in map(parse_override, overrides):
        if key in axes:
            raise ValueError(f"{key}={value} would change nothing: {key} is an axis of {path}; change the axis there")
        section, key = ("launch", key.removeprefix("launch.")) if key.startswith("launch.") else ("set", key)
        values[section] = {**_section(values, section, dict, path), key: value}
    study = _typed(values, path)
    study.set = flat_keys(_section(values, "set", dict, path))
    study.axes = {str(key): _axis(key, options, path) for key, options in axes.items()}
    study.points = [_point(point, path) for point in _section(values, "points", list, path)]
    study.rules = {str(key): _rule(key, rule, path) for key, rule in _section(values, "rules", dict, path).items()}
    return study, values


def base_file(study: StudyConfig, path: Path) -> Path:
    """Return the YAML file that `base` means: a recipe, or a file given relative to the study file `path`."""
    return path.parent / study.base if is_own_base(study) else recipe_path(study.base)


def is_own_base(study: StudyConfig) -> bool:
    """Return whether `base` is a file of the user's and not a recipe."""
    return study.base.endswith((".yaml", ".yml"))


def flat_keys(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested or dotted keys of a run's config as dotted ones. `parallel.deepspeed` is free-form and one key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and dotted != "parallel.deepspeed":
            flat.update(flat_keys(value, f"{dotted}."))
        else:
            flat[dotted] = value
    return flat


def default_keys() -> dict[str, Any]:
    """Return every key of a run's config, dotted, with its default."""
    values = OmegaConf.to_container(OmegaConf.structured(RunConfig))
    assert isinstance(values, dict), "a configuration is a mapping"
    return flat_keys(values)


Kind = TypeVar("Kind", dict[Any, Any], list[Any])


def _section(values: Mapping[str, Any], key: str, kind: type[Kind], path: Path) -> Kind:
    value = values.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise ValueError(f"{path}: {key} must be a {'mapping of keys' if kind is dict else 'list'}, not {value!r}")
    return value


def _axis(key: Any, options: Any, path: Path) -> list[Any]:
    if not isinstance(options, list) or not options:
        raise ValueError(f"{path}: axes.{key} must be a list of values, not {options!r}")
    return options


def _point(point: Any, path: Path) -> dict[str, Any]:
    if not isinstance(point, dict):
        raise ValueError(f"{path}: every entry of points must be a mapping of keys, not {point!r}")
    return flat_keys(point)


def _rule(key: Any, rule: Any, path: Path) -> dict[Any, dict[str, Any]]:
    if not isinstance(rule, dict):
        raise ValueError(f"{path}: rules.{key} must map values of {key} to keys, not be {rule!r}")
    for value, keys in rule.items():
        if not isinstance(keys, dict):
            raise ValueError(f"{path}: rules.{key}.{value} must be a mapping of keys, not {keys!r}")
    return {value: flat_keys(keys) for value, keys in rule.items()}


_FREE_SECTIONS = ("set", "axes", "points", "rules")


def _typed(values: Mapping[str, Any], path: Path) -> StudyConfig:
    """Return all but the free-form sections, with their types checked."""
    launch_keys = [str(key) for key in OmegaConf.structured(LaunchConfig)]
    for key in _section(values, "launch", dict, path):
        if key not in launch_keys:
            raise ValueError(f"{path}: unknown key 'launch.{key}'{suggestion(str(key), launch_keys)}")
    given = {key: value for key, value in values.items() if key not in _FREE_SECTIONS and value is not None}
    try:
        study = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(StudyConfig), given))
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: {error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(study, StudyConfig)
    check_schema(path, study.schema_version, SCHEMA_VERSION)
    if study.launch.executor not in EXECUTORS:
        raise ValueError(f"{path}: launch.executor={study.launch.executor!r} is not one of {', '.join(EXECUTORS)}")
    for key in ("max_parallel", "runs_per_job"):
        if getattr(study.launch, key) < 1:
            raise ValueError(f"{path}: launch.{key}={getattr(study.launch, key)} must be at least 1")
    if study.launch.timeout_hours <= 0:
        raise ValueError(f"{path}: launch.timeout_hours={study.launch.timeout_hours} must be positive")
    return study
