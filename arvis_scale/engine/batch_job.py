"""The batch job that this process belongs to, as its environment names it: Slurm's, or submitit's on this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def job_id(environment: Mapping[str, str] = os.environ) -> str:
    """Return the job's number, of an element of an array as `1234_5`; empty where this process is in no job."""
    if "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID") or environment.get("SUBMITIT_LOCAL_JOB_ID", "")


def restart(environment: Mapping[str, str] = os.environ) -> int:
    """Return how often Slurm has put the job back into its queue."""
    return int(environment.get("SLURM_RESTART_COUNT", "0"))


def node_name(environment: Mapping[str, str] = os.environ) -> str:
    """Return the node's name in Slurm, elsewhere the host's."""
    return environment.get("SLURMD_NODENAME") or socket.gethostname()
