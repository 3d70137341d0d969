"""Executors: where the jobs of a study run, behind one interface (`executor.Executor`)."""

from __future__ import annotations

from pathlib import Path

from arvis_scale.launch.executors.executor import Executor
from arvis_scale.launch.executors.profiles import load_profile
from arvis_scale.launch.studies.study import Study


def executor_of(study: Study) -> Executor:
    """Return the executor that a study asks for; `ValueError` for a profile that is missing or wrong."""
    return make_executor(study.launch.executor, study.launch.cluster, study.output)


def make_executor(name: str, cluster: str | None, study_folder: Path) -> Executor:
    """Return the executor of this name with this profile: what the sweep.json of a study folder says."""
    # Imported here: local and debug bring torch, which takes seconds that Slurm's commands do not need.
    if name == "slurm":
        from arvis_scale.launch.executors.slurm import SlurmExecutor

        if cluster is None:
            raise ValueError("launch.executor=slurm needs launch.cluster: a profile's name, or a YAML file of your own")
        return SlurmExecutor(load_profile(cluster), cluster)
    if name == "local":
        from arvis_scale.launch.executors.local import LocalExecutor

        return LocalExecutor(load_profile(cluster or "local"), study_folder)
    from arvis_scale.launch.executors.debug import DebugExecutor

    assert name == "debug", "the study file was checked"
    return DebugExecutor()
