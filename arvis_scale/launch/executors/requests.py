"""What a job asks of a cluster: the run's resources, else what the cluster's profile says."""

from __future__ import annotations

import math
from dataclasses import dataclass

from arvis_scale.launch.executors.profiles import ClusterProfile
from arvis_scale.launch.studies.expansion import PlannedRun

_MEBIBYTE = 2**20


@dataclass(frozen=True)
class Request:
    """Nodes, processes and time of one job."""

    nodes: int
    processes_per_node: int
    cpus_per_process: int | None
    gpus_per_node: int
    # Host memory per node, in GB (1e9 bytes).
    memory_gb: float | None
    minutes: int
    partition: str
    constraint: str | None

    def sbatch_parameters(self) -> dict[str, object]:
        """Return the request as submitit's parameters; None for what is not asked."""
        return {
            "nodes": self.nodes,
            "ntasks_per_node": self.processes_per_node,
            "cpus_per_task": self.cpus_per_process,
            "gpus_per_node": self.gpus_per_node or None,
            # Slurm's megabytes are mebibytes.
            "mem": None if self.memory_gb is None else f"{int(self.memory_gb * 1e9) // _MEBIBYTE}M",
            "time": self.minutes,
            "partition": self.partition,
            "constraint": self.constraint,
        }


def request_of(run: PlannedRun, profile: ClusterProfile, timeout_hours: float) -> Request:
    """Return what a job of this run asks for, with one process per device.

    Raises `ValueError` when its processes do not fill nodes evenly, without a partition, for more time than the
    profile allows, and for so little that the job would be told to stop at once.
    """
    processes, most = run.config.parallel.processes, profile.most_processes_per_node
    nodes = -(-processes // most)
    if processes % nodes:
        raise ValueError(
            f"run {run.config.name}: parallel.processes={processes} cannot be spread evenly over {nodes} nodes of "
            f"{most} processes; take a multiple of {most}"
        )
    resources, per_node = run.resources, processes // nodes
    partition = resources.partition or profile.partition
    if partition is None:
        raise ValueError(
            f"run {run.config.name} has no partition: set `partition` in a profile of your own, or resources.partition "
            f"in the study (`sinfo` names those of a cluster)"
        )
    cpus = resources.cpus_per_process
    if cpus is None and profile.cpus_per_node is not None:
        cpus = max(1, profile.cpus_per_node // most)
    memory_gb = resources.memory_gb
    if memory_gb is None and profile.memory_gb is not None:
        memory_gb = profile.memory_gb * per_node / most
    return Request(
        nodes=nodes,
        processes_per_node=per_node,
        cpus_per_process=cpus,
        gpus_per_node=per_node if profile.gpus_per_node else 0,
        memory_gb=memory_gb,
        minutes=_minutes(run, profile, timeout_hours),
        partition=partition,
        constraint=resources.constraint or profile.constraint,
    )


def _minutes(run: PlannedRun, profile: ClusterProfile, timeout_hours: float) -> int:
    """Return the time limit of a job of this run."""
    hours = run.resources.hours
    if hours is not None and hours > profile.hours:
        raise ValueError(
            f"run {run.config.name}: resources.hours={hours:g} is more than hours={profile.hours:g} of the "
            f"profile, its longest job; leave it out, as a longer run goes on in its requeued job"
        )
    minutes = math.ceil(60 * (min(timeout_hours, profile.hours) if hours is None else hours))
    if 60 * minutes <= profile.signal_seconds:
        raise ValueError(
            f"run {run.config.name}: a job of {minutes} minutes is told to stop signal_seconds="
            f"{profile.signal_seconds} before its end, so at once; raise resources.hours or launch.timeout_hours"
        )
    return minutes


def report_request(request: Request, profile: ClusterProfile) -> Request:
    """Return what the report asks for: one process without a device, where `request` went."""
    memory_gb = None if profile.memory_gb is None else min(8.0, profile.memory_gb)
    return Request(1, 1, 1, 0, memory_gb, math.ceil(60 * min(1.0, profile.hours)), request.partition, None)
