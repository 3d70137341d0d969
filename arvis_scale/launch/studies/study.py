"""A study: a study file read and expanded into runs, and its copy in the study folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from arvis_scale.atomic import write_text
from arvis_scale.config import load_yaml
from arvis_scale.launch.studies.expansion import PlannedRun, expand
from arvis_scale.launch.studies.prefixes import share_prefixes
from arvis_scale.launch.studies.references import reference_runs
from arvis_scale.launch.studies.study_file import (
    BudgetConfig,
    LaunchConfig,
    base_file,
    is_own_base,
    own_cluster_file,
    read_study_file,
)

STUDY_NAME = "study.yaml"
BASE_NAME = "base.yaml"
CLUSTER_NAME = "cluster.yaml"


@dataclass(frozen=True)
class Study:
    """A study file read, its runs expanded and every one of their configurations validated."""

    name: str
    output: Path
    launch: LaunchConfig
    runs: tuple[PlannedRun, ...]
    # Keys that the runs of one cell differ in; empty: nothing is tuned.
    tuned: tuple[str, ...]
    budget: BudgetConfig
    # The study's own YAML with the overrides in it, as written to OUTPUT/study.yaml.
    text: str
    # The YAML of a base that is no recipe, as written to OUTPUT/base.yaml.
    base_text: str | None
    # The YAML of a cluster's profile that is not one of the package's, as written to OUTPUT/cluster.yaml.
    cluster_text: str | None

    @property
    def saved_cluster(self) -> str | None:
        """The cluster's profile as later commands find it, wherever they are given: by name, or the copy's path."""
        return self.launch.cluster if self.cluster_text is None else str((self.output / CLUSTER_NAME).absolute())


def load_study(path: Path, output: Path | None, overrides: Sequence[str] = (), additions: Sequence[str] = ()) -> Study:
    """Read a study file, with `key=value` overrides and additions to its axes, and expand it into runs.

    `output` is the study folder: by default `runs/NAME`, and for the copy in a study folder that folder. Overrides and
    additions are those of `read_study_file`. Raises `ValueError` naming the file and the key.
    """
    config, values = read_study_file(path, overrides, additions)
    base_path = base_file(config, path)
    base = load_yaml(base_path)
    is_copy = path.name == STUDY_NAME and (path.parent / "sweep.json").is_file()
    folder = output or (path.parent if is_copy else Path("runs") / config.name)
    runs = expand(config, base, folder, path)
    if config.references:
        runs += reference_runs(runs, folder)
    _check_names(runs, path)
    runs = share_prefixes(runs)
    base_text = None
    if is_own_base(config):
        base_text = base_path.read_text(encoding="utf-8")
        values["base"] = BASE_NAME
    cluster_text = None
    if (cluster := own_cluster_file(config.launch, path)) is not None:
        cluster_text = cluster.read_text(encoding="utf-8")
        config.launch.cluster = str(cluster)
        values["launch"] = {**values["launch"], "cluster": CLUSTER_NAME}
    text = yaml.safe_dump(values, sort_keys=False)
    tuned = tuple(config.tune)
    return Study(config.name, folder, config.launch, tuple(runs), tuned, config.budget, text, base_text, cluster_text)


def save_study(study: Study) -> None:
    """Write OUTPUT/study.yaml, and its base beside it; `ValueError` when the folder holds another study."""
    refuse_other_study(study)
    if study.base_text is not None:
        write_text(study.output / BASE_NAME, study.base_text)
    if study.cluster_text is not None:
        write_text(study.output / CLUSTER_NAME, study.cluster_text)
    write_text(study.output / STUDY_NAME, study.text)


def refuse_other_study(study: Study) -> None:
    """Raise `ValueError` when the study's folder holds another one, or something else."""
    file = study.output / STUDY_NAME
    if file.exists():
        before = load_yaml(file)
        if before.get("name") != study.name:
            raise ValueError(f"{study.output} holds the study {before.get('name')!r}; choose another --output")
    elif study.output.exists() and not study.output.is_dir():
        raise ValueError(f"{study.output} is a file; choose another --output")


def _check_names(runs: Sequence[PlannedRun], path: Path) -> None:
    seen: set[str] = set()
    for run in runs:
        if run.config.name in seen:
            raise ValueError(
                f"{path}: two runs are named {run.config.name}; axes and points must not repeat each other"
            )
        seen.add(run.config.name)
