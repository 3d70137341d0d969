"""Executors: where the jobs of a study run, behind one interface (`executor.Executor`)."""

from __future__ import annotations

from arvis_scale.launch.executors.executor import Executor
from arvis_scale.launch.executors.profiles import load_profile
from arvis_scale.launch.studies.study_file import LaunchConfig


def executor_of(launch: LaunchConfig) -> Executor:
    """Return the executor that a study asks for; `ValueError` for a profile that is missing or wrong."""
    return make_executor(launch.executor, launch.cluster)


def make_executor(name: str, cluster: str | None) -> Executor:
    """Return the executor of this name with this profile: what sweep.json says of a sweep that was submitted."""
    # Imported here: local and debug bring torch, which takes seconds that Slurm's commands do not need.
    if name == "slurm":
        from arvis_scale.launch.executors.slurm import SlurmExecutor

        if cluster is None:
            raise ValueError("launch.executor=slurm needs launch.cluster: a profile's name, or a YAML file of your own")
        return SlurmExecutor(load_profile(cluster), cluster)
    if name == "local":
        from arvis_scale.launch.executors.local import LocalExecutor

        return LocalExecutor(load_profile(cluster or "local"))
    from arvis_scale.launch.executors.debug import DebugExecutor

    assert name == "debug", "the study file was checked"
    return DebugExecutor()
