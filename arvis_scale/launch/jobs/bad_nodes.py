"""Nodes on which different runs of a study failed: its jobs are kept off them.

STUDY/node_failures/NODE/RUN is there when RUN failed on NODE: an empty file for each, so that of jobs that fail at the
same moment none writes what another does. STUDY/node_failures/PARTITION.json lists the nodes of that partition at the
last failure there.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from arvis_scale.atomic import read_json, write_json
from arvis_scale.engine import batch_job
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.jobs.requeue import exclude_nodes, partition_nodes
from arvis_scale.launch.sweep_file import SWEEP_NAME, read_sweep

SCHEMA_VERSION = 1
# Runs that must have failed on a node, and on no other one, before it is called bad.
_NUM_RUNS = 2
_logger = logging.getLogger(__name__)


def bad_nodes(study: Path) -> list[str]:
    """Return the nodes on which two runs of the study failed, of those that failed on no other node.

    A run that fails everywhere has itself to blame, and says nothing of the nodes. Where more than half of a
    partition's nodes would be bad, none of them is: it is the study or a disk, and its jobs must start somewhere.
    """
    failures = [(path.parent.name, path.name) for path in study.glob("node_failures/*/*")]
    num_nodes = Counter(run for _, run in failures)
    blamed = Counter(node for node, run in failures if num_nodes[run] == 1)
    bad = {node for node, count in blamed.items() if count >= _NUM_RUNS}
    files = study.glob("node_failures/*.json") if bad else ()
    partitions = [set(read_json(file, newest_schema=SCHEMA_VERSION)["nodes"]) for file in files]
    too_many = [nodes for nodes in partitions if 2 * len(bad & nodes) > len(nodes)]
    return sorted(bad.difference(*too_many))


def record_failure(folder: RunFolder, node: str) -> None:
    """Note that the run of `folder` failed on `node`; when that changes which nodes are bad, tell the study's jobs.

    Only for a failure that may be the node's. Without Slurm's word on the partition's nodes none is accused: it takes
    them to know when too many are.
    """
    study, partition = study_of(folder), os.environ.get("SLURM_JOB_PARTITION", "")
    if study is None or not partition or not (nodes := partition_nodes(partition)):
        return
    before = bad_nodes(study)
    values = {"schema_version": SCHEMA_VERSION, "nodes": nodes}
    write_json(study / "node_failures" / f"{partition}.json", values)
    mark = study / "node_failures" / node / folder.path.name
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    now = bad_nodes(study)
    if now != before:
        names = [", ".join(some) or "none" for some in (now, before)]
        _logger.warning("bad nodes by %s: %s (were: %s)", study / "node_failures", *names)
        exclude_nodes(sorted(set(read_sweep(study).jobs.values())), now, before, states="PENDING")


def is_bad(folder: RunFolder, nodes: Sequence[str]) -> bool:
    """Return whether one of `nodes` is bad for the study of the run."""
    study = study_of(folder)
    return study is not None and not set(nodes).isdisjoint(bad_nodes(study))


def exclude_from_this_job(folder: RunFolder) -> None:
    """Keep this job, which has just been put back into the queue, off the bad nodes of its study."""
    study = study_of(folder)
    if study is not None and (bad := bad_nodes(study)):
        exclude_nodes([batch_job.job_id()], bad, states="all")


def study_of(folder: RunFolder) -> Path | None:
    """Return the study folder that the run lies in (STUDY/runs/RUN); None for a run of no study."""
    study = folder.path.resolve().parents[1]
    return study if (study / SWEEP_NAME).is_file() else None
