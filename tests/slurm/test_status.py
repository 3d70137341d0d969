"""What is known of a sweep on a real Slurm, and what can be done to it: status, logs, cancel, resume."""

import json
import re
import time

import pytest

from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.sweep_file import read_sweep

pytestmark = pytest.mark.processes

PROFILE = """
schema_version: 1
partition: main
gpus_per_node: 1
cpus_per_node: 1
hours: 0.5
environment: {OMP_NUM_THREADS: "1"}
array_parallelism: 1
"""
# The first run lasts long enough to be looked at and cancelled.
STUDY = """
schema_version: 1
name: known
base: digits
set: {preset: pico, global_batch_size: 16, micro_batch_size: 16, log.metrics_every: 10, data.validation_images: 20}
points:
  - {objective: xtra, samples_seen: 24000, seed: 0}
  - {objective: xtra, samples_seen: 160, seed: 1}
references: false
launch: {executor: slurm, cluster: profile.yaml, report: false}
"""


@pytest.fixture(scope="module")
def study(cluster, digits, tmp_path_factory):
    """A study of two runs of which one runs and one waits: its folder and its run folders."""
    folder = tmp_path_factory.mktemp("a study")
    (folder / "profile.yaml").write_text(PROFILE)
    (folder / "study.yaml").write_text(STUDY.replace("profile.yaml", f'"{folder}/profile.yaml"'))
    given = ["data.shards=" + str(digits), "probe_data.shards=" + str(digits)]
    done = cluster.arvis_scale("sweep", "submit", folder / "study.yaml", *given, "--output", folder / "out")
    assert done.returncode == 0, done.stderr
    runs = [RunFolder(folder / "out" / "runs" / name) for name in read_sweep(folder / "out").jobs]
    cluster.wait_until(lambda: runs[0].metrics.exists() and '"loss"' in runs[0].metrics.read_text(), 120)
    return folder / "out", runs


def states(cluster, folder):
    """Return `sweep status --json` by run."""
    shown = cluster.arvis_scale("sweep", "status", folder, "--json")
    assert shown.returncode == 0, shown.stderr
    status = json.loads(shown.stdout)
    assert status["not_asked"] == ""
    return {run["name"]: run for run in status["runs"]}


def test_a_study_is_watched_cancelled_and_resumed(study, cluster):
    folder, (first, second) = study
    running, waiting = states(cluster, folder).values()
    assert (running["state"], running["job_state"], running["disagreement"]) == ("running", "RUNNING", "")
    assert running["node"].startswith("testnode") and running["step"] >= 10
    assert running["loss"] > 0 and running["samples_per_second"] > 0 and running["seconds_left"] > 0
    assert (waiting["state"], waiting["job_state"], waiting["waits_for"]) == ("pending", "PENDING", "JobArrayTaskLimit")

    log = cluster.arvis_scale("sweep", "logs", folder, first.path.name)
    assert log.returncode == 0, log.stderr
    assert f"job {running['job']} of {first.path.name}" in log.stdout
    assert "step 10 of 1500, loss" in log.stdout
    assert "holds nothing of job" in cluster.arvis_scale("sweep", "logs", folder, second.path.name).stderr

    cancelled = cluster.arvis_scale("sweep", "cancel", folder)
    assert cancelled.returncode == 0, cancelled.stderr
    assert "2 runs cancelled: 1 saved at their last step, 1 had done none, 0 lost steps" in cancelled.stdout
    assert not cluster.jobs("JobID")
    saved = first.status()
    assert saved.state == "preempted" and (first.checkpoints / f"step_{saved.step:08d}").is_dir()
    assert [run["state"] for run in states(cluster, folder).values()] == ["cancelled", "cancelled"]

    resumed = cluster.arvis_scale("sweep", "resume", folder, second.path.name)
    assert resumed.returncode == 0, resumed.stderr
    assert "1 runs submitted" in resumed.stdout
    followed = cluster.arvis_scale("sweep", "logs", folder, second.path.name, "--follow")
    assert "step 10 of 10, loss" in followed.stdout
    shown = states(cluster, folder)
    assert [run["state"] for run in shown.values()] == ["cancelled", "completed"]
    assert shown[second.path.name]["device_hours"] > 0
    assert first.status() == saved  # which was not named


def test_where_folder_and_slurm_disagree_both_are_said(study, cluster):
    folder, (first, _) = study
    cluster.wait_for_no_jobs()
    status = first.status()
    status.state, status.job = "running", read_sweep(folder).jobs[first.path.name]
    first.write_status(status)
    killed = states(cluster, folder)[first.path.name]
    assert killed["state"] == "lost"
    assert killed["disagreement"].startswith("the folder says running, its last heartbeat is ")
    assert re.search(rf"; Slurm says (CANCELLED|COMPLETED) of job {status.job} on testnode", killed["disagreement"])
    shown = cluster.arvis_scale("sweep", "status", folder).stdout
    assert "1 lost, 1 completed" in shown and "* " + first.path.name in shown


def test_a_job_that_was_cancelled_past_the_sweep_and_one_that_waits(study, cluster):
    folder, (first, _) = study
    cluster.slurm("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        status = first.status()
        status.heartbeat, status.state = time.time() - 1000, "failed"
        first.write_status(status)
        resumed = cluster.arvis_scale("sweep", "resume", folder)
        assert "1 runs submitted" in resumed.stdout, resumed.stderr
        waiting = states(cluster, folder)[first.path.name]
        assert (waiting["state"], waiting["job_state"]) == ("pending", "PENDING")
        assert "Partition" in waiting["waits_for"]
        cluster.slurm("scancel", waiting["job"])
        cancelled = states(cluster, folder)[first.path.name]
        assert cancelled["state"] == "cancelled"
        assert cancelled["disagreement"].startswith("the folder says pending; Slurm says CANCELLED")
    finally:
        cluster.slurm("scontrol", "update", "PartitionName=main", "State=UP")
    assert "nothing to cancel" in cluster.arvis_scale("sweep", "cancel", folder).stdout
