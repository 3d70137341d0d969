"""Cluster profiles: all that differs between clusters, as YAML by name (slurm/clusters/) or of the user's own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from arvis_scale.atomic import check_schema
from arvis_scale.config import load_yaml, suggestion

SCHEMA_VERSION = 1


@dataclass
class ClusterProfile:
    """How to ask a cluster for nodes; None and empty: the cluster's own default."""

    schema_version: int = SCHEMA_VERSION
    # As `sbatch` takes them. Without a partition nothing is submitted: `sinfo` names those of a cluster.
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    # GPUs of a node; 0: none. A run has one process per GPU, on as many nodes as it takes.
    gpus_per_node: int = 0
    # What `plan --device` calls them, for the hours that a study is predicted to take; null: as this machine's.
    device: str | None = None
    # Processes that a run has on one node at most; null: one per GPU, or one where there are none.
    processes_per_node: int | None = None
    # CPU cores and memory (GB, 1e9 bytes) of a node. A run with some of its processes gets that share of both.
    cpus_per_node: int | None = None
    memory_gb: float | None = None
    # Longest job, in hours; longer runs go on in their requeued job.
    hours: float = 24.0
    # So many seconds before the time limit a job is told to save and asks for its requeue.
    signal_seconds: int = 120
    # Jobs of one array that run at once; `launch.max_parallel` may say less.
    array_parallelism: int = 64
    # Lines of shell before the processes start, on the job's first node: `module load ...`.
    setup: list[str] = field(default_factory=list)
    # Environment variables of the processes: NCCL's, caches.
    environment: dict[str, str] = field(default_factory=dict)
    # What Python is started through, as a line of shell: `apptainer exec --nv image.sif`. Null: nothing.
    container: str | None = None
    # The Python of the job; null: the one that submits. A container has its own.
    python: str | None = None
    # Further options of `sbatch`, as {mail-type: FAIL}.
    sbatch: dict[str, str] = field(default_factory=dict)

    @property
    def most_processes_per_node(self) -> int:
        """Processes that a run has on one node at most."""
        return self.processes_per_node or max(1, self.gpus_per_node)


def profile_names() -> list[str]:
    """Return the names of the profiles that ship with the package."""
    folder = Path(str(resources.files("arvis_scale.slurm.clusters")))
    return sorted(path.stem for path in folder.glob("*.yaml"))


def profile_path(name: str) -> Path:
    """Return the file of a profile, by its name or, ending in .yaml, by its path; `ValueError` for an unknown one."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    names = profile_names()
    if name not in names:
        raise ValueError(
            f"launch.cluster={name}: there is no such profile{suggestion(name, names)}; "
            f"take {', '.join(names)} or a YAML file of your own"
        )
    return Path(str(resources.files("arvis_scale.slurm.clusters"))) / f"{name}.yaml"


def load_profile(name: str) -> ClusterProfile:
    """Read and check a profile (see `profile_path`). Raises `ValueError` naming the file and the key."""
    path = profile_path(name)
    values = load_yaml(path)
    known = [str(key) for key in OmegaConf.structured(ClusterProfile)]
    for key in values:
        if key not in known:
            raise ValueError(f"{path}: unknown key {key!r}{suggestion(str(key), known)}")
    given = {key: value for key, value in values.items() if value is not None}
    try:
        profile = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ClusterProfile), given))
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: {error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(profile, ClusterProfile)
    check_schema(path, profile.schema_version, SCHEMA_VERSION)
    _check(profile, path)
    return profile


def _check(profile: ClusterProfile, path: Path) -> None:
    for key in ("hours", "array_parallelism", "processes_per_node", "cpus_per_node", "memory_gb"):
        value = getattr(profile, key)
        if value is not None and value <= 0:
            raise ValueError(f"{path}: {key}={value} must be above 0")
    for key in ("gpus_per_node", "signal_seconds"):
        if getattr(profile, key) < 0:
            raise ValueError(f"{path}: {key}={getattr(profile, key)} must not be negative")
    most = profile.most_processes_per_node
    if 0 < profile.gpus_per_node < most:
        raise ValueError(f"{path}: processes_per_node={most} is more than gpus_per_node={profile.gpus_per_node}")
    if profile.signal_seconds >= 3600 * profile.hours:
        raise ValueError(f"{path}: signal_seconds={profile.signal_seconds} must be less than hours={profile.hours}")
    for name in profile.environment:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{path}: environment: {name!r} is not a name of a variable")
