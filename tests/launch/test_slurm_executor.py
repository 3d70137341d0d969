"""What is submitted to Slurm, in which order and after what; Slurm's commands here write down what they are told."""

import os
import re
import time

import pytest

from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.launch.executors.packing import pack_jobs
from arvis_scale.launch.executors.profiles import ClusterProfile
from arvis_scale.launch.executors.slurm import SlurmExecutor
from arvis_scale.launch.studies.study import load_study
from arvis_scale.launch.sweep_file import Sweep, SweepRun, write_sweep

STUDY = """
schema_version: 1
name: sent
base: digits
set: {data.shards: shards/digits, preset: pico, objective: xtra, teacher.kind: pixels}
axes: {seed: [0, 1], samples_seen: [SAMPLES]}
references: false
launch: {executor: slurm, cluster: testcluster}
"""
# A run of 512 samples per seed, from which one of 256 branches.
BRANCHES = ["optimizer.schedule=warmup_stable_decay", "optimizer.warmup_samples=64"]
TOKENS = ["objective=digpt", "teacher.tokens=tokens/digits", "launch.token_views=2"]
REPORT = "launch.report=true"
# Numbers of jobs begin at 101. A file `refuse` names the submission that sbatch does not take.
SBATCH = """
number=$(($(ls sent | wc -l) + 1))
if [ "$number" = "$(cat refuse 2>/dev/null)" ]; then echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; fi
cp "$1" sent/$((100 + number)); echo "Submitted batch job $((100 + number))"
"""
SQUEUE = """
while read -r job state; do echo "$job|$state|0|0|None||"; done < living
"""
SCONTROL = """
if [ "$1" = show ]; then echo "MaxArraySize = 1001"; exit; fi
cat >> updates; echo "Job is no longer pending execution for job 102_0" >&2; exit 1
"""
# A job that is told to save goes back into the queue.
SCANCEL = """
echo "$@" >> cancelled
if [ "$1" = --signal=USR2 ]; then sed -i s/RUNNING/PENDING/ living; exit; fi
for job; do sed -i "/^$job /d" living; done
"""


class Told:
    """Notes of the jobs that were started."""

    def __init__(self):
        self.by_run, self.by_folder, self.reports = {}, {}, []

    def runs(self, jobs):
        self.by_run.update(jobs)

    def tokens(self, folder, job):
        self.by_folder[folder] = job

    def report(self, job):
        self.reports.append(job)


class Slurm:
    """The commands on the PATH, and what they were told."""

    def __init__(self, folder):
        self.folder = folder
        commands = {"sbatch": SBATCH, "squeue": SQUEUE, "scontrol": SCONTROL, "scancel": SCANCEL, "sacct": "exit 1\n"}
        (folder / "bin").mkdir()
        (folder / "sent").mkdir()
        (folder / "living").touch()
        for name, text in {**commands, "srun": ""}.items():
            (folder / "bin" / name).write_text(f"#!/bin/bash\ncd {folder}\n{text}")
            (folder / "bin" / name).chmod(0o755)

    def options(self, job):
        """Return sbatch's options of a job by their names."""
        text = (self.folder / "sent" / job).read_text()
        return dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, flags=re.MULTILINE))

    @property
    def sent(self):
        return sorted(path.name for path in (self.folder / "sent").iterdir())


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), "/usr/bin", "/bin"]))
    return Slurm(tmp_path)


@pytest.fixture
def send(tmp_path, slurm):
    """Return a function that submits the runs of a study with overrides, or none, and returns what was told of it."""
    executor = SlurmExecutor(ClusterProfile(partition="main"), "testcluster")
    submitted = {}

    def send(*overrides, samples="256", only=None):
        (tmp_path / "study.yaml").write_text(STUDY.replace("SAMPLES", samples))
        study = load_study(tmp_path / "study.yaml", tmp_path / "out", overrides)
        runs = [run for run in study.runs if only is None or run.config.seed in only]
        before = submitted.get("sweep", Sweep("sent"))
        now = tuple(SweepRun(run.config.name, run.kind, before.jobs.get(run.config.name)) for run in study.runs)
        write_sweep(study.output, Sweep("sent", runs=now, report_job=before.report_job, token_jobs=before.token_jobs))
        told = Told()
        executor.run(study, tmp_path, pack_jobs(runs, 1, num_slots=1), told)
        submitted["sweep"] = Sweep(
            "sent", runs=tuple(SweepRun(run.name, run.kind, told.by_run.get(run.name, run.job)) for run in now),
            report_job=(told.reports or [before.report_job])[-1], token_jobs={**before.token_jobs, **told.by_folder},
        )  # fmt: skip
        return told

    return send


def test_jobs_whose_parents_have_begun_are_told_and_the_rest_goes_on(send, slurm, caplog):
    told = send(*BRANCHES, REPORT, samples="256, 512")
    assert sorted(told.by_run.values()) == ["101_0", "101_1", "102_0", "102_1"]
    assert slurm.options("102")["dependency"] == "afterany:101"
    updates = (slurm.folder / "updates").read_text().splitlines()
    assert updates == [f"update JobId=102_{task} Dependency=afterany:101_{task}" for task in (0, 1)]
    assert "Job is no longer pending execution for job 102_0" in caplog.text
    assert told.reports == ["103"]
    assert slurm.options("103")["dependency"] == "afterany:101:102"


def test_what_sbatch_refuses_midway_says_how_much_is_queued(send, slurm):
    (slurm.folder / "refuse").write_text("2")
    with pytest.raises(ValueError) as raised:
        send(*BRANCHES, REPORT, samples="256, 512")
    assert "QOSMaxSubmitJobPerUserLimit; 2 jobs are queued already, `sweep submit` again adds the rest" in str(
        raised.value
    )
    assert "\n" not in str(raised.value)


def test_runs_start_only_when_their_tokens_are_there(send, slurm):
    told = send(*TOKENS)
    assert told.by_folder == {"tokens/digits": "101"}
    assert set(told.by_run.values()) == {"102_0", "102_1"}
    options = slurm.options("102")
    assert (options["dependency"], options["kill-on-invalid-dep"]) == ("afterok:101", "yes")


def test_a_living_job_that_stores_tokens_serves_a_later_submission(send, slurm):
    send(*TOKENS, only=[0])
    (slurm.folder / "living").write_text("101 RUNNING\n102 PENDING\n")
    told = send(*TOKENS, only=[1])
    assert told.by_folder == {} and list(told.by_run.values()) == ["103"]
    assert slurm.options("103")["dependency"] == "afterok:101"
    (slurm.folder / "living").write_text("")  # it failed, so Slurm has cancelled those that waited for it
    assert send(*TOKENS).by_folder == {"tokens/digits": "104"}


def report_of(folder, *, seconds_ago):
    (folder / "out" / "report.html").touch()
    os.utime(folder / "out" / "report.html", (time.time() - seconds_ago,) * 2)


def test_a_report_that_is_missing_is_submitted_alone(send, slurm, tmp_path):
    assert send(REPORT).reports == ["102"]
    run = RunFolder(tmp_path / "out" / "runs" / "a")
    run.write_status(Status("completed"))
    run.result.touch()
    assert send(REPORT, only=[]).reports == ["103"]  # its job is gone and left none
    assert "dependency" not in slurm.options("103")
    (slurm.folder / "living").write_text("103 PENDING\n")
    assert send(REPORT, only=[]).reports == []
    (slurm.folder / "living").write_text("")
    report_of(tmp_path, seconds_ago=60)
    assert send(REPORT, only=[]).reports == ["104"]  # it is older than a result
    report_of(tmp_path, seconds_ago=-60)
    assert send(REPORT, only=[]).reports == []
    assert send(only=[]).reports == []
    assert slurm.sent == ["101", "102", "103", "104"]


def test_a_report_that_waits_makes_room_for_one_after_the_further_runs(send, slurm):
    assert send(REPORT, only=[0]).reports == ["102"]
    (slurm.folder / "living").write_text("101 RUNNING\n102 PENDING\n")
    told = send(REPORT, only=[1])
    assert told.reports == ["104"]
    assert slurm.options("104")["dependency"] == "afterany:101:103"
    assert (slurm.folder / "cancelled").read_text() == "102\n"


def test_a_cancelled_job_that_goes_back_into_the_queue_is_taken_out_of_it(slurm):
    (slurm.folder / "living").write_text("101 RUNNING\n102_0 PENDING\n103 RUNNING\n")
    SlurmExecutor(ClusterProfile(partition="main"), "testcluster").cancel(["101", "102_0"])
    told = (slurm.folder / "cancelled").read_text().splitlines()
    assert told == ["102_0", "--signal=USR2 101", "101"]
