"""What a run asks a cluster for: one process per device, on as few nodes as hold them."""

from dataclasses import replace
from pathlib import Path

import pytest

from arvis_scale.launch.executors.profiles import ClusterProfile, load_profile
from arvis_scale.launch.executors.requests import report_request, request_of
from arvis_scale.launch.studies.resources import Resources
from arvis_scale.launch.studies.study import load_study

PROFILE = ClusterProfile(partition="gpu", gpus_per_node=8, cpus_per_node=128, memory_gb=1000.0, hours=24.0)
STUDY = """
schema_version: 1
name: requests
base: digits
set: {data.shards: shards/digits, samples_seen: 64, preset: nano}
axes: {objective: [xtra]}
references: false
"""


@pytest.fixture
def run_on(tmp_path):
    """Return a function: a run on so many processes that asks for such resources."""
    (tmp_path / "requests.yaml").write_text(STUDY)

    def run(processes, **resources):
        wide = [f"parallel.processes={processes}", f"global_batch_size={processes}", "micro_batch_size=1"]
        study = load_study(tmp_path / "requests.yaml", tmp_path / "out", wide)
        return replace(study.runs[0], resources=Resources(**resources))

    return run


@pytest.mark.parametrize(
    ("processes", "nodes", "per_node", "memory"),
    [(1, 1, 1, "119209M"), (2, 1, 2, "238418M"), (8, 1, 8, "953674M"), (16, 2, 8, "953674M"), (12, 2, 6, "715255M")],
)
def test_a_run_gets_its_share_of_as_few_nodes_as_hold_it(run_on, processes, nodes, per_node, memory):
    asked = request_of(run_on(processes), PROFILE, 100.0).sbatch_parameters()
    assert (asked["nodes"], asked["ntasks_per_node"], asked["gpus_per_node"]) == (nodes, per_node, per_node)
    assert (asked["cpus_per_task"], asked["mem"], asked["time"]) == (16, memory, 24 * 60)


def test_processes_that_do_not_fill_nodes_evenly_are_refused(run_on):
    with pytest.raises(ValueError, match="parallel.processes=9 cannot be spread evenly over 2 nodes of 8 processes"):
        request_of(run_on(9), PROFILE, 1.0)


def test_what_the_run_asks_for_comes_before_the_profile(run_on):
    own = {"hours": 0.25, "memory_gb": 1.0, "cpus_per_process": 3, "partition": "big", "constraint": "h100"}
    asked = request_of(run_on(2, **own), PROFILE, 1.0).sbatch_parameters()
    assert asked["time"] == 15
    assert asked["mem"] == "953M"
    assert (asked["cpus_per_task"], asked["partition"], asked["constraint"]) == (3, "big", "h100")


def test_a_job_is_no_longer_than_study_and_cluster_allow(run_on):
    assert request_of(run_on(1), PROFILE, 2.5).minutes == 150
    assert request_of(run_on(1), PROFILE, 1e6).minutes == 24 * 60


def test_a_longer_job_than_the_profile_s_longest_is_refused(run_on):
    with pytest.raises(ValueError, match=r"resources.hours=48 is more than hours=24 of the profile") as raised:
        request_of(run_on(1, hours=48.0), PROFILE, 1.0)
    assert "\n" not in str(raised.value)
    assert request_of(run_on(1, hours=24.0), PROFILE, 1.0).minutes == 24 * 60


@pytest.mark.parametrize(("own", "timeout_hours"), [({}, 0.03), ({"hours": 0.03}, 24.0)])
def test_a_job_that_would_be_told_to_stop_at_once_is_refused(run_on, own, timeout_hours):
    with pytest.raises(ValueError, match="a job of 2 minutes is told to stop signal_seconds=120 before its end"):
        request_of(run_on(1, **own), PROFILE, timeout_hours)
    assert request_of(run_on(1, **own), replace(PROFILE, signal_seconds=60), timeout_hours).minutes == 2


def test_without_gpus_a_node_has_one_process_and_none_are_asked_for(run_on):
    asked = request_of(run_on(2), ClusterProfile(partition="cpu"), 1.0).sbatch_parameters()
    assert (asked["nodes"], asked["ntasks_per_node"], asked["gpus_per_node"], asked["mem"]) == (2, 1, None, None)


def test_a_run_without_a_partition_is_refused(run_on):
    with pytest.raises(ValueError, match="has no partition: set `partition` in a profile of your own"):
        request_of(run_on(1), replace(PROFILE, partition=None), 1.0)
    assert request_of(run_on(1, partition="gpu"), replace(PROFILE, partition=None), 1.0).partition == "gpu"


def test_the_report_asks_for_no_device(run_on):
    asked = report_request(request_of(run_on(16), PROFILE, 1.0), PROFILE)
    assert (asked.nodes, asked.processes_per_node, asked.gpus_per_node) == (1, 1, 0)


def test_the_study_that_ships_for_a_cluster_asks_for_no_longer_jobs_than_its_profile_has(tmp_path):
    path = Path(__file__).parents[2] / "slurm" / "studies" / "xtra_in1k_lengths.yaml"
    study = load_study(path, tmp_path / "out", ["data.shards=shards/in1k", "probe_data.shards=shards/in1k"])
    profile = replace(load_profile(study.launch.cluster), partition="gpu")
    minutes = {request_of(run, profile, study.launch.timeout_hours).minutes for run in study.runs}
    assert minutes == {12 * 60, 24 * 60}
