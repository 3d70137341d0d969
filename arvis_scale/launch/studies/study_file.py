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
exclude:                        # runs with all of these values are left out; of a list with any
  - {objective: aim, preset: nano, unique_images: [100, 1000]}
tune:                           # of a combination's runs the one with the lowest val_loss is its point
  optimizer.learning_rate: [1e-3, 3e-3]
rules:                          # keys that follow from another key's value
  preset:
    nano: {micro_batch_size: 32, resources.hours: 2}
  objective, preset:            # from those of several keys together
    aim, micro: {optimizer.learning_rate: 3e-3}
budget: {device_hours: 100}     # refused when `plan` predicts more
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
from arvis_scale.config import check_key, flat_keys, load_yaml, parse_override, recipe_path, suggestion
from arvis_scale.engine.run_folder import MAX_ENDS
from arvis_scale.launch.studies.extension import extend_axes
from arvis_scale.launch.studies.resources import PREFIX, RESOURCE_KEYS
from arvis_scale.launch.studies.rules import keys_of

SCHEMA_VERSION = 1
EXECUTORS = ("local", "slurm", "debug")


@dataclass
class LaunchConfig:
    """How the runs are started."""

    # local: jobs on this machine | slurm: jobs of a cluster | debug: in this process, one run after the other.
    executor: str = "local"
    # The cluster's profile: one of slurm/clusters by name, or a YAML file of one's own; null: `local`.
    cluster: str | None = None
    # Training processes at once, over all jobs; under Slurm jobs at once, per array. null: 1, and under Slurm the
    # profile's array_parallelism.
    max_parallel: int | None = None
    # Short runs that share one job, one after the other: starting DeepSpeed costs about as long as a small run.
    runs_per_job: int = 1
    # Time limit of a job, in hours, where no `resources.hours` says another.
    timeout_hours: float = 24.0
    # Starts of a run without a new checkpoint before it is given up.
    max_attempts: int = 3
    # Views of each training image whose teacher tokens a first job stores, for D-iGPT runs whose teacher.tokens names a
    # folder that is not complete; null: `shards tokenize` has filled it.
    token_views: int | None = None
    # Storage that the tokens of one folder may take, in GB (1e9 bytes); what would take more is refused.
    max_token_gb: float = 10.0
    # Whether a last job collects the points, fits, plots and reports once every job has ended, however it did.
    report: bool = False


@dataclass
class BudgetConfig:
    """What a study may cost."""

    # Hours of all devices together, as `plan` predicts them; what exceeds them is refused. null: any.
    device_hours: float | None = None


@dataclass
class StudyConfig:
    """The keys of a study file. Keys of a run are dotted in `set`, `axes`, `points` and in what `rules` give."""

    schema_version: int = SCHEMA_VERSION
    name: str = "???"
    base: str = "???"
    set: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    points: list[dict[str, Any]] = field(default_factory=list)
    # Key (or several, with commas) -> its value, as YAML reads it -> keys.
    rules: dict[str, dict[Any, dict[str, Any]]] = field(default_factory=dict)
    # Runs left out: those that have all values of one of these entries.
    exclude: list[dict[str, Any]] = field(default_factory=list)
    # Axes within a cell: of all the combinations of these the run with the lowest val_loss is the cell's point.
    tune: dict[str, Any] = field(default_factory=dict)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    references: bool = True
    launch: LaunchConfig = field(default_factory=LaunchConfig)


def read_study_file(
    path: Path, overrides: Sequence[str] = (), additions: Sequence[str] = ()
) -> tuple[StudyConfig, dict[str, Any]]:
    """Return a study file's keys, typed, and its YAML values with the overrides and additions in them.

    An override `launch.KEY=VALUE` or `budget.KEY=VALUE` changes that section of the study, any other one `set`; an
    addition is one of `extension.extend_axes`. Raises `ValueError` naming the file and the key.
    """
    values = load_yaml(path)
    known = [str(key) for key in OmegaConf.structured(StudyConfig)]
    for key in values:
        if key not in known:
            raise ValueError(f"{path}: unknown key {key!r}{suggestion(str(key), known)}")
    for key, value in map(parse_override, overrides):
        for axes in ("axes", "tune"):
            if key in _section(values, axes, dict, path):
                raise ValueError(
                    f"{key}={value} would change nothing: {key} is an axis of {path}; change the axis there"
                )
        section = next((name for name in ("launch", "budget") if key.startswith(f"{name}.")), "set")
        values[section] = {**_section(values, section, dict, path), key.removeprefix(f"{section}."): value}
    extend_axes(values, additions, path)
    study = _typed(values, path)
    study.set = flat_keys(_section(values, "set", dict, path))
    study.axes, study.tune = (_axes(name, _section(values, name, dict, path), path) for name in ("axes", "tune"))
    study.points, study.exclude = (_mappings(name, values, path) for name in ("points", "exclude"))
    study.rules = {str(key): _rule(key, rule, path) for key, rule in _section(values, "rules", dict, path).items()}
    _check_keys(study, path)
    return study, values


def base_file(study: StudyConfig, path: Path) -> Path:
    """Return the YAML file that `base` means: a recipe, or a file given relative to the study file `path`."""
    return path.parent / study.base if is_own_base(study) else recipe_path(study.base)


def own_cluster_file(launch: LaunchConfig, path: Path) -> Path | None:
    """Return the YAML file that `launch.cluster` means: beside the study file `path`, else where the command is given.

    None for a profile of the package, and for none.
    """
    if launch.cluster is None or not launch.cluster.endswith((".yaml", ".yml")):
        return None
    beside = path.parent / launch.cluster
    return beside if beside.is_file() else Path(launch.cluster)


def is_own_base(study: StudyConfig) -> bool:
    """Return whether `base` is a file of the user's and not a recipe."""
    return study.base.endswith((".yaml", ".yml"))


Kind = TypeVar("Kind", dict[Any, Any], list[Any])


def _section(values: Mapping[str, Any], key: str, kind: type[Kind], path: Path) -> Kind:
    value = values.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise ValueError(f"{path}: {key} must be a {'mapping of keys' if kind is dict else 'list'}, not {value!r}")
    return value


def _axes(name: str, axes: Mapping[Any, Any], path: Path) -> dict[str, Any]:
    for key, options in axes.items():
        if not isinstance(options, list) or not options:
            raise ValueError(f"{path}: {name}.{key} must be a list of values, not {options!r}")
    return {str(key): options for key, options in axes.items()}


def _mappings(name: str, values: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    entries = _section(values, name, list, path)
    for entry in entries:
        if not isinstance(entry, dict) or not entry:
            raise ValueError(f"{path}: every entry of {name} must be a mapping of keys, not {entry!r}")
    return [flat_keys(entry) for entry in entries]


def _rule(key: Any, rule: Any, path: Path) -> dict[Any, dict[str, Any]]:
    if not isinstance(rule, dict):
        raise ValueError(f"{path}: rules.{key} must map values of {key} to keys, not be {rule!r}")
    for value, keys in rule.items():
        if not isinstance(keys, dict):
            raise ValueError(f"{path}: rules.{key}.{value} must be a mapping of keys, not {keys!r}")
    return {value: flat_keys(keys) for value, keys in rule.items()}


# Keys that the study gives to every run itself.
_OWN_KEYS = ("name", "output", "schema_version")


def _check_keys(study: StudyConfig, path: Path) -> None:
    """Refuse keys that no run has, and those that are not for a study file to give."""
    given: dict[str, list[Mapping[str, Any]]] = {
        "set": [study.set],
        "axes": [flat_keys(option) for option in _options(study.axes)],
        "tune": [flat_keys(option) for option in _options(study.tune)],
        "points": [*study.points],
        "rules": [keys for by_value in study.rules.values() for keys in by_value.values()],
    }
    for section, places in given.items():
        for key in {key: None for keys in places for key in keys}:
            if key in _OWN_KEYS:
                raise ValueError(f"{path}: {section}: every run gets its {key} from the study; leave {key!r} out")
            if not key.startswith(PREFIX):
                check_key(key, f"{path}: {section}")
            elif key not in RESOURCE_KEYS:
                raise ValueError(f"{path}: {section}: unknown key {key!r}{suggestion(key, RESOURCE_KEYS)}")
    for key in (key for entry in study.exclude for key in entry):
        check_key(key, f"{path}: exclude")
    for key in (key for rule in study.rules for key in keys_of(rule)):
        check_key(key, f"{path}: rules")
    for key in study.tune:
        if key in study.axes:
            raise ValueError(f"{path}: {key} is in axes and in tune; leave one out")


def _options(axes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{key: option} for key, options in axes.items() for option in options]


_FREE_SECTIONS = ("set", "axes", "points", "rules", "exclude", "tune")


def _typed(values: Mapping[str, Any], path: Path) -> StudyConfig:
    """Return all but the free-form sections, with their types checked."""
    for section, kind in (("launch", LaunchConfig), ("budget", BudgetConfig)):
        section_keys = [str(key) for key in OmegaConf.structured(kind)]
        for key in _section(values, section, dict, path):
            if key not in section_keys:
                raise ValueError(f"{path}: unknown key '{section}.{key}'{suggestion(str(key), section_keys)}")
    given = {key: value for key, value in values.items() if key not in _FREE_SECTIONS and value is not None}
    try:
        study = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(StudyConfig), given))
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: {error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(study, StudyConfig)
    check_schema(path, study.schema_version, SCHEMA_VERSION)
    _check_values(study, path)
    return study


def _check_values(study: StudyConfig, path: Path) -> None:
    if not study.name.isprintable() or study.name != study.name.strip() or study.name.startswith("."):
        raise ValueError(f"{path}: name={study.name!r} must be one line, and not begin with a dot or a space")
    if "/" in study.name:
        raise ValueError(f"{path}: name={study.name!r} is also a folder's; leave the slash out")
    if study.launch.executor not in EXECUTORS:
        raise ValueError(f"{path}: launch.executor={study.launch.executor!r} is not one of {', '.join(EXECUTORS)}")
    for key in ("max_parallel", "runs_per_job", "max_attempts", "token_views"):
        value = getattr(study.launch, key)
        if value is not None and value < 1:
            raise ValueError(f"{path}: launch.{key}={value} must be at least 1")
    if study.launch.max_attempts > MAX_ENDS:  # what a status remembers
        raise ValueError(f"{path}: launch.max_attempts={study.launch.max_attempts} must be at most {MAX_ENDS}")
    for key in ("timeout_hours", "max_token_gb"):
        if getattr(study.launch, key) <= 0:
            raise ValueError(f"{path}: launch.{key}={getattr(study.launch, key)} must be positive")
    if study.budget.device_hours is not None and study.budget.device_hours <= 0:
        raise ValueError(f"{path}: budget.device_hours={study.budget.device_hours} must be positive, or null for any")
