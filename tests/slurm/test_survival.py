"""Runs that a real Slurm disturbs go on where they were, and end with the weights of one that was left alone.

All runs are the same but for their names (a key that nothing reads) and where they run; they go through one cluster at
the same time, as starting one takes longer than training it.
"""

import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from arvis_scale.engine.checkpointing.files import newest_step
from arvis_scale.engine.exit_status import OUT_OF_MEMORY, PREEMPTED
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.jobs.bad_nodes import bad_nodes
from arvis_scale.launch.sweep_file import read_sweep

pytestmark = pytest.mark.processes

WHOLE_NODE = "resources.cpus_per_process: 16"
STUDY = f"""
schema_version: 1
name: survival
base: digits
set:
  objective: xtra
  preset: pico
  unique_images: 100
  samples_seen: 19200
  global_batch_size: 32
  micro_batch_size: 16
  data.validation_images: 20
  checkpoints.every: 50
  optimizer.warmup_fraction: 0.0
points:
  - {{probe_data.test_split: quiet}}
  - {{probe_data.test_split: timed, resources.hours: 0.016}}
  - {{probe_data.test_split: waiting}}
  - {{probe_data.test_split: killed}}
  - {{probe_data.test_split: stepping, parallel.processes: 2, {WHOLE_NODE}}}
  - {{probe_data.test_split: preempted, {WHOLE_NODE}}}
  - {{probe_data.test_split: saving, {WHOLE_NODE}}}
references: false
launch: {{executor: slurm, cluster: cluster.yaml}}
"""
BROKEN_STUDY = """
schema_version: 1
name: broken
base: digits
set: {objective: xtra, preset: pico, samples_seen: 640, data.validation_images: 20}
axes: {seed: [0, 1]}
references: false
launch: {executor: slurm, cluster: cluster.yaml}
"""
PROFILE = """
schema_version: 1
partition: low
processes_per_node: 1
cpus_per_node: 1
hours: 0.5
signal_seconds: 20
environment: {{PYTHONPATH: {faults}, {name}: "{value}"}}
"""
FAULTS = Path(__file__).parent / "faults"


def submit(cluster, digits, folder, study, **environment):
    ((name, value),) = environment.items()
    folder.mkdir()
    (folder / "cluster.yaml").write_text(PROFILE.format(faults=FAULTS, name=name, value=value))
    (folder / "study.yaml").write_text(study)
    done = cluster.arvis_scale("sweep", "submit", "study.yaml", f"data.shards={digits}", "--output", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "out"


class Disturbances:
    """What befalls the runs of the study, each when its time has come."""

    def __init__(self, cluster, output, slow_save):
        self.cluster, self.slow_save = cluster, slow_save
        self.jobs = {name.rpartition("_")[2]: job for name, job in read_sweep(output).jobs.items()}
        self.runs = {path.name.rpartition("_")[2]: RunFolder(path) for path in (output / "runs").iterdir()}
        self.crashed = set()

    def trains(self, name):
        """Whether the run has done steps, and has more to do."""
        log = self.runs[name].metrics
        return log.is_file() and log.stat().st_size > 0

    def processes(self, name):
        """Return the processes that train the run."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "arvis_scale.launch.jobs.worker" in words and any(self.runs[name].path.name in word for word in words):
                found.append(process)
        return found

    def nodes(self, name):
        return self.cluster.slurm("squeue", "-h", "-j", self.jobs[name], "-o", "%N").split()

    def crash(self, node):
        self.cluster.do("crash_node", node)
        self.crashed.add(node)

    def restart_nodes(self):
        """Start again the nodes that Slurm has given up."""
        shown = self.cluster.slurm("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T")
        down = {node for node, state in map(str.split, shown.splitlines()) if state.startswith("down")}
        for node in down & self.crashed:
            self.crashed.remove(node)
            self.cluster.do("start_node", node)

    def kill(self):
        """As the kernel does when memory is short: the largest process, and it alone."""
        self.processes("killed")[0].kill()

    def ask_while_the_controller_is_away(self):
        """The job saves and wants to be requeued, which nobody hears until the controller is back."""
        self.cluster.do("stop_controller")
        self.processes("waiting")[0].parent().send_signal(signal.SIGUSR2)
        self.cluster.wait_until(lambda: self.runs["waiting"].status().state == "preempted", 60)
        self.cluster.do("start_controller")

    def preempt(self):
        """A job of a higher partition wants the run's whole node."""
        (node,) = self.nodes("preempted")
        self.cluster.slurm(
            "sbatch", "--partition=high", f"--nodelist={node}", "--ntasks=16", "--wrap=true", "-o/dev/null"
        )

    def crash_while_stepping(self):
        listed = self.cluster.slurm("scontrol", "show", "hostnames", *self.nodes("stepping")).split()
        self.crash(listed[1])

    def crash_while_saving(self):
        self.crash(*self.nodes("saving"))

    def give_more_time(self):
        """On a busy machine a minute is enough to start, and no more."""
        self.cluster.slurm("scontrol", "update", f"JobId={self.jobs['timed']}", "TimeLimit=10")

    def bring_about(self):
        """Do all of it, in whatever order the runs are ready for it, and wait until all jobs have ended."""
        waiting = {
            self.kill: lambda: self.trains("killed"),
            self.ask_while_the_controller_is_away: lambda: self.trains("waiting"),
            self.preempt: lambda: self.trains("preempted"),
            self.crash_while_stepping: lambda: newest_step(self.runs["stepping"].checkpoints) > 0,
            self.crash_while_saving: self.slow_save.exists,
            self.give_more_time: lambda: self.runs["timed"].status().state == "pending" and ends(self.runs["timed"]),
        }
        deadline = time.monotonic() + 400
        while waiting or self.cluster.jobs("JobID"):
            assert time.monotonic() < deadline, (waiting, self.cluster.slurm("squeue"))
            for disturb in [disturb for disturb, is_time in waiting.items() if is_time()]:
                del waiting[disturb]
                disturb()
            self.restart_nodes()
            time.sleep(0.5)


@pytest.fixture(scope="module")
def broken_study(cluster, digits, tmp_path_factory):
    """Two runs that Slurm puts on its first node, which is broken."""
    return submit(cluster, digits, tmp_path_factory.mktemp("broken") / "study", BROKEN_STUDY, FAULTY_NODE="testnode1")


@pytest.fixture(scope="module")
def disturbed(broken_study, cluster, digits, tmp_path_factory):
    """The study after all that befell it; the broken one went through the cluster with it."""
    folder = tmp_path_factory.mktemp("survival")
    output = submit(cluster, digits, folder / "study", STUDY, SLOW_SAVE=folder / "a save hangs")
    disturbances = Disturbances(cluster, output, folder / "a save hangs")
    disturbances.bring_about()
    return disturbances


@pytest.fixture(scope="module")
def runs(disturbed):
    """The runs of the study by their word."""
    return disturbed.runs


@pytest.fixture(scope="module")
def requeues(disturbed):
    """Return a function (word of a run) -> how often Slurm put its job back into the queue."""

    def count(name):
        shown = disturbed.cluster.slurm("scontrol", "show", "job", "--oneliner", disturbed.jobs[name])
        return int(re.search(r"Restarts=(\d+)", shown)[1])

    return count


def weights(run):
    assert run.status().state == "completed", (run.status(), run.path)
    return load_file(run.encoder)


def ends(run):
    return [(end.state, end.exit_status) for end in run.status().ends]


@pytest.mark.parametrize("name", ["timed", "waiting", "preempted", "saving"])
def test_a_disturbed_run_ends_with_the_weights_of_a_quiet_one(runs, name):
    quiet, disturbed = weights(runs["quiet"]), weights(runs[name])
    assert runs["quiet"].status().attempt == 1
    assert runs[name].status().attempt > 1
    assert all(disturbed[key].equal(quiet[key]) for key in quiet)


@pytest.mark.parametrize("name", ["killed", "stepping"])
def test_one_that_is_spread_otherwise_ends_with_them_but_for_rounding(runs, name):
    quiet, disturbed = weights(runs["quiet"]), weights(runs[name])
    assert all(disturbed[key].allclose(quiet[key], rtol=1e-2, atol=1e-3) for key in quiet)


def test_a_time_limit_ends_in_a_checkpoint_and_a_requeue(runs):
    assert set(ends(runs["timed"])) == {("preempted", PREEMPTED)}
    reasons = {end.reason.partition(":")[0] for end in runs["timed"].status().ends}
    assert reasons <= {"SIGUSR2", "SIGTERM", "time limit"}


def test_a_preempted_run_goes_on_from_the_step_at_which_it_left(runs):
    status = runs["preempted"].status()
    assert set(ends(runs["preempted"])) == {("preempted", PREEMPTED)}
    assert [end.begun_from for end in [*status.ends[1:], status]] == [end.step for end in status.ends]


@pytest.mark.parametrize("name", ["timed", "waiting", "preempted", "stepping", "saving"])
def test_a_job_is_requeued_once_for_every_start_that_did_not_finish(runs, requeues, name):
    assert requeues(name) == len(runs[name].status().ends)


def test_a_job_asks_again_until_the_controller_is_back(runs):
    assert ends(runs["waiting"]) == [("preempted", PREEMPTED)]


def test_a_process_without_memory_goes_on_with_half_the_micro_batch(runs):
    assert ends(runs["killed"]) == [("failed", OUT_OF_MEMORY)]
    assert "goes on with micro_batch_size=8 in place of 16" in runs["killed"].status().ends[0].reason
    assert runs["killed"].read_result()["micro_batch_size"] == 8
    assert runs["quiet"].read_result()["micro_batch_size"] == 16


def test_a_node_that_dies_in_a_save_leaves_the_checkpoint_before_it(runs):
    (end,) = runs["saving"].status().ends
    assert (end.state, end.reason) == ("failed", "ended without a word (killed, or its node failed)")
    assert runs["saving"].status().begun_from == 50
    assert not list(runs["saving"].checkpoints.glob(".step_*"))


def test_a_run_on_two_nodes_outlives_one_of_them(runs):
    assert runs["stepping"].status().attempt == 2
    assert runs["stepping"].status().begun_from > 0


def test_a_node_on_which_two_runs_failed_is_left_out(broken_study, runs):
    statuses = [RunFolder(path).status() for path in (broken_study / "runs").iterdir()]
    assert bad_nodes(broken_study) == ["testnode1"]
    for status in statuses:
        assert status.state == "completed", status
        assert status.node != "testnode1"
        assert {end.node for end in status.ends} == {"testnode1"}
        assert "uncorrectable ECC error" in status.ends[0].reason
