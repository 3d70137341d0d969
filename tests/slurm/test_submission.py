"""Studies submitted to a real Slurm: what its jobs ask for, in which order they run, and what they leave."""

import json
import subprocess
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from arvis_scale.atomic import read_json
from arvis_scale.engine.logs.metrics_log import read_metrics
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.sweep_file import read_sweep

pytestmark = pytest.mark.processes

# Names that a shell, Slurm's script parser or submitit would take for something else.
AWKWARD = 'it\'s a "study" $HOME `x` & #1;é'
STUDY = """
schema_version: 1
name: {name}
base: digits
set: {{samples_seen: 256, preset: pico, global_batch_size: 64, micro_batch_size: 16, data.validation_images: 20,
       log.metrics_every: 1}}
{points}
references: false
launch: {{executor: slurm, cluster: "{cluster}", {launch}}}
"""
PROFILE = """
schema_version: 1
partition: main
gpus_per_node: 2
cpus_per_node: 2
memory_gb: 4
hours: 0.5
setup:
  - export WHO="$USER's"
environment: {{OMP_NUM_THREADS: "1", AWKWARD: "$HOME's \\"value\\""}}
array_parallelism: {array_parallelism}
"""


def write_study(folder, *, name, points, launch="report: false", array_parallelism=2):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "my cluster.yaml").write_text(PROFILE.format(array_parallelism=array_parallelism))
    cluster = folder / "my cluster.yaml"
    cluster_as_yaml = str(cluster).replace("\\", "\\\\").replace('"', '\\"')
    text = STUDY.format(name=json.dumps(name), points=points, cluster=cluster_as_yaml, launch=launch)
    (folder / "study.yaml").write_text(text)
    return folder / "study.yaml"


def submission(digits, study, output):
    return ["sweep", "submit", study, f"data.shards={digits}", f"probe_data.shards={digits}", "--output", output]


def statuses(output):
    return {path.name: RunFolder(path).status() for path in sorted((output / "runs").iterdir())}


def accounted(cluster, field, job):
    """Return sacct's `field` of a job, or of every task of an array, in order."""
    shown = cluster.slurm("sacct", "-n", "-P", "-X", "-j", job, "-o", f"JobID,{field}")
    return dict(line.split("|") for line in shown.splitlines())


@pytest.fixture(scope="module")
def small_study(cluster, digits, tmp_path_factory):
    """Four runs in an array of two jobs, one at a time, and a report; submitted twice at the same moment."""
    folder = tmp_path_factory.mktemp("submission") / AWKWARD
    points = "axes: {objective: [xtra, aim], unique_images: [16, 64]}"
    study = write_study(
        folder, name=AWKWARD, points=points, launch="runs_per_job: 2, report: true", array_parallelism=1
    )
    # What `python -m` would import instead of the submitted code, if jobs began in the user's directory.
    (folder / "arvis_scale").mkdir()
    (folder / "arvis_scale" / "__init__.py").write_text("raise ImportError('this is not the code that was submitted')")
    command = ["arvis-scale", *map(str, submission(digits, study.name, "out"))]
    both = [
        subprocess.Popen(
            command, cwd=folder, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [(*process.communicate(timeout=120), process.returncode) for process in both]
    cluster.wait_for_no_jobs()
    return folder / "out", said


def test_of_two_submissions_at_once_one_wins_and_the_other_says_so(small_study, cluster):
    output, said = small_study
    won = [text for text, _, code in said if code == 0 and "4 runs submitted as Slurm jobs" in text]
    lost = [text + errors for text, errors, _ in said if "4 runs submitted" not in text]
    assert len(won) == len(lost) == 1, said
    assert "another `sweep submit` is at work" in lost[0] or "4 of 4 runs are left to" in lost[0]
    assert {status.attempt for status in statuses(output).values()} == {1}
    assert len(read_sweep(output).commands) == 1


def test_the_study_runs_through_slurm_to_a_report(small_study, cluster):
    output, _ = small_study
    sweep = read_sweep(output)
    assert {status.state for status in statuses(output).values()} == {"completed"}, statuses(output)
    assert "COMPLETED" in accounted(cluster, "State", sweep.report_job).values()
    assert (output / "report.html").stat().st_size > 10_000
    assert (output / "points.csv").read_text().count("completed") == 4


def test_jobs_of_an_array_run_one_at_a_time_where_the_profile_says_so(small_study, cluster):
    output, _ = small_study
    jobs = sorted(set(read_sweep(output).jobs.values()))
    assert [job.partition("_")[2] for job in jobs] == ["0", "1"]
    array = jobs[0].partition("_")[0]
    starts, ends = accounted(cluster, "Start", array), accounted(cluster, "End", array)
    assert starts[jobs[1]] >= ends[jobs[0]]


def test_jobs_run_the_submitted_code_in_the_directory_of_the_command(small_study):
    output, _ = small_study
    sweep = read_sweep(output)
    assert sweep.snapshot is not None
    assert (output / sweep.snapshot / "arvis_scale" / "slurm" / "train.sbatch").is_file()
    assert not list(output.glob("logs/*.err"))
    for log in output.glob("logs/*_log.out"):
        assert "this is not the code that was submitted" not in log.read_text()


def test_what_is_completed_is_not_submitted_again(small_study, cluster, digits):
    output, _ = small_study
    (output.parent / "my cluster.yaml").unlink()  # the study folder has a copy
    again = cluster.arvis_scale("sweep", "submit", output / "study.yaml", "launch.report=false", cwd=output.parent)
    assert again.returncode == 0, again.stderr
    assert "4 of 4 runs completed" in again.stdout
    assert not cluster.jobs("JobID")


@pytest.fixture(scope="module")
def wide_study(cluster, digits, tmp_path_factory):
    """Two runs of the small study again, on two nodes of two processes: by ZeRO-3 and in a pipeline."""
    folder = tmp_path_factory.mktemp("wide")
    points = """
points:
  - {objective: xtra, unique_images: 16, parallel.processes: 4, parallel.strategy: zero3}
  - {objective: xtra, unique_images: 64, parallel.processes: 4, parallel.strategy: pipeline, parallel.stages: 2}
"""
    study = write_study(folder, name="wide", points=points, array_parallelism=1)
    done = cluster.arvis_scale(*submission(digits, study, folder / "out"))
    assert done.returncode == 0, done.stderr
    cluster.wait_for_no_jobs()
    return folder / "out"


@pytest.mark.parametrize("name", ["xtra-pico-u16-n256-s0", "xtra-pico-u64-n256-s0"])
def test_two_nodes_of_two_processes_give_the_losses_of_one(wide_study, small_study, name, cluster):
    spread, alone = RunFolder(wide_study / "runs" / name), RunFolder(small_study[0] / "runs" / name)
    assert spread.status().state == "completed", spread.status()
    assert read_json(spread.environment, newest_schema=1)["world_size"] == 4
    job = read_sweep(wide_study).jobs[name]
    assert set(accounted(cluster, "NNodes", job).values()) == {"2"}
    assert len(list(wide_study.glob(f"logs/{job}_*_log.out"))) == 4
    losses = [[line["loss"] for line in read_metrics(run.metrics) if "loss" in line] for run in (spread, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.fixture
def no_new_jobs(cluster):
    """Jobs wait for as long as the test lasts, and are cancelled then."""
    cluster.slurm("scontrol", "update", "PartitionName=main", "State=DOWN")
    yield
    cluster.slurm("scancel", "--partition=main")
    cluster.slurm("scontrol", "update", "PartitionName=main", "State=UP")
    cluster.wait_for_no_jobs()


def test_a_branch_waits_for_its_parent_and_the_report_for_all(cluster, digits, tmp_path, no_new_jobs):
    points = """
axes: {samples_seen: [256, 512], seed: [0, 1]}
"""
    study = write_study(tmp_path, name="branches", points=points, launch="report: true")
    schedule = ["objective=xtra", "optimizer.schedule=warmup_stable_decay", "optimizer.warmup_samples=64"]
    done = cluster.arvis_scale(*submission(digits, study, tmp_path / "out"), *schedule)
    assert done.returncode == 0, done.stderr
    sweep = read_sweep(tmp_path / "out")
    waits_for = dict(line for line in cluster.jobs("JobArrayID", "Dependency") if len(line) == 2)
    for run in sweep.runs:
        parent = next(other for other in sweep.runs if other.name == run.name.replace("n256", "n512"))
        if parent != run:
            assert parent.job in waits_for[run.job].replace("(", ":").split(":"), waits_for
    arrays = {job.partition("_")[0] for job in sweep.jobs.values()}
    assert all(f"{array}_" in waits_for[sweep.report_job] or array in waits_for[sweep.report_job] for array in arrays)


def with_tokens(folder):
    """Return a study's overrides for a teacher with random weights, whose tokens are to be stored."""
    save_file(timm.create_model("test_vit").state_dict(), folder / "teacher.safetensors")
    teacher = ["teacher.kind=timm", "teacher.architecture=test_vit"]
    return [*teacher, f"teacher.checkpoint={folder / 'teacher.safetensors'}", f"teacher.tokens={folder / 'tokens'}"]


def test_runs_wait_for_the_job_that_stores_their_tokens_which_is_cancelled_with_them(
    cluster, digits, tmp_path, no_new_jobs
):
    points = "axes: {objective: [digpt, xtra], unique_images: [16, 64]}"
    study = write_study(tmp_path, name="tokens", points=points, launch="token_views: 1")
    done = cluster.arvis_scale(*submission(digits, study, tmp_path / "out"), *with_tokens(tmp_path))
    assert done.returncode == 0, done.stderr
    sweep = read_sweep(tmp_path / "out")
    (maker,) = sweep.token_jobs.values()
    waits_for = {line[0]: line[1] for line in cluster.jobs("JobArrayID", "Dependency") if len(line) == 2}
    for name, job in sweep.jobs.items():
        assert waits_for[job].startswith(f"afterok:{maker}(" if name.startswith("digpt") else "(null)")
    cancelled = cluster.arvis_scale("sweep", "cancel", tmp_path / "out")
    assert cancelled.returncode == 0, cancelled.stderr
    assert not cluster.jobs("JobID")


def test_a_job_that_stores_tokens_is_requeued_and_when_it_fails_the_runs_that_wait_are_cancelled(
    cluster, digits, tmp_path
):
    points = "axes: {objective: [digpt], unique_images: [64]}"
    study = write_study(tmp_path, name="many_tokens", points=points, launch="token_views: 500")
    done = cluster.arvis_scale(*submission(digits, study, tmp_path / "out"), *with_tokens(tmp_path))
    assert done.returncode == 0, done.stderr
    sweep = read_sweep(tmp_path / "out")
    (maker,), (run,) = sweep.token_jobs.values(), sweep.jobs.values()
    cluster.wait_until(lambda: (tmp_path / "tokens" / "tokens.json").is_file(), 120)
    (tmp_path / "teacher.safetensors").unlink()  # so that its next start fails
    cluster.slurm("scancel", "--signal=USR2", maker)
    cluster.wait_until(lambda: ["1"] in cluster.jobs("RestartCnt"))
    cluster.wait_for_no_jobs()
    assert accounted(cluster, "State", maker)[maker] == "FAILED"
    assert accounted(cluster, "State", run)[run].startswith("CANCELLED")


def test_jobs_that_wait_are_not_submitted_again_nor_when_one_was_cancelled_the_others(
    cluster, digits, tmp_path, no_new_jobs
):
    study = write_study(tmp_path, name="waiting", points="axes: {objective: [xtra], seed: [0, 1, 2]}")
    first = cluster.arvis_scale(*submission(digits, study, tmp_path / "out"))
    assert first.returncode == 0, first.stderr
    before = read_sweep(tmp_path / "out").jobs
    second = cluster.arvis_scale(*submission(digits, study, tmp_path / "out"))
    assert "3 of 3 runs are left to an earlier submission's living jobs" in second.stderr
    assert read_sweep(tmp_path / "out").jobs == before
    cancelled = sorted(before)[1]
    cluster.slurm("scancel", before[cancelled])
    third = cluster.arvis_scale(*submission(digits, study, tmp_path / "out"))
    assert "2 of 3 runs are left" in third.stderr
    now = read_sweep(tmp_path / "out").jobs
    assert {name for name in now if now[name] != before[name]} == {cancelled}


def test_jobs_are_kept_off_the_profiles_nodes_and_the_studys_bad_ones(cluster, digits, tmp_path, no_new_jobs):
    study = write_study(tmp_path, name="kept_off", points="axes: {objective: [xtra]}")
    with open(tmp_path / "my cluster.yaml", "a") as profile:
        profile.write("sbatch: {exclude: testnode1}\n")
    failures = tmp_path / "out" / "node_failures" / "testnode2"
    failures.mkdir(parents=True)
    for run in ("first", "second"):
        (failures / run).touch()
    done = cluster.arvis_scale(*submission(digits, study, tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    (job,) = read_sweep(tmp_path / "out").jobs.values()
    assert "ExcNodeList=testnode[1-2]" in cluster.slurm("scontrol", "show", "job", job).split()


def test_what_slurm_would_refuse_is_told_in_a_line_and_nothing_is_written(cluster, digits, tmp_path):
    study = write_study(tmp_path, name="refused", points="axes: {objective: [xtra, aim]}")
    profile = tmp_path / "my cluster.yaml"
    profile.write_text(profile.read_text().replace("partition: main", "partition: mian"))
    done = cluster.arvis_scale(*submission(digits, study, tmp_path / "out"))
    assert done.returncode == 2
    assert "sbatch would refuse run xtra" in done.stderr
    assert "invalid partition" in done.stderr.lower()
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not cluster.jobs("JobID")


def test_train_sbatch_trains_one_run_on_two_nodes(cluster, digits, tmp_path):
    script = Path(__file__).parents[2] / "slurm" / "train.sbatch"
    done = subprocess.run(
        ["sbatch", "--wait", "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", "--time=10", str(script),
         "digits", "objective=xtra", "preset=pico", "samples_seen=256", "global_batch_size=64", "micro_batch_size=16",
         f"data.shards={digits}", "data.validation_images=20", "name=by hand", "output=by hand $1"],
        cwd=tmp_path, env=cluster.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    (log,) = tmp_path.glob("arvis-scale-*.out")
    assert done.returncode == 0, log.read_text()
    assert "completed at step 4 of 4: by hand $1" in log.read_text()
    assert read_json(tmp_path / "by hand $1" / "environment.json", newest_schema=1)["world_size"] == 2


# Of two processes the second ends while the first still saves; started again, both complete.
TRAINER = """#!/bin/bash
case $SLURM_RESTART_COUNT,$RANK in
  ,1) exit 75;;
  ,0) sleep 3; echo "the first has saved"; exit 75;;
  *) echo "process $RANK completes";;
esac
"""


def test_train_sbatch_goes_back_into_the_queue_when_its_processes_have_saved_one_by_one(cluster, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "arvis-scale").write_text(TRAINER)
    (tmp_path / "bin" / "arvis-scale").chmod(0o755)
    script = Path(__file__).parents[2] / "slurm" / "train.sbatch"
    environment = {**cluster.environment, "PATH": f"{tmp_path / 'bin'}:{cluster.environment['PATH']}"}
    sent = subprocess.run(
        ["sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", "--time=10", str(script), "digits"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    cluster.wait_for_no_jobs()
    job = sent.stdout.strip()
    log = (tmp_path / f"arvis-scale-{job}.out").read_text()
    assert all(words in log for words in ("the first has saved", "process 0 completes", "process 1 completes")), log
    assert accounted(cluster, "State", job)[job] == "COMPLETED"
    assert not list(tmp_path.glob(".preempted*"))


def test_without_accounting_a_study_completes_and_is_not_submitted_again(cluster_without_accounting, digits, tmp_path):
    cluster = cluster_without_accounting
    study = write_study(tmp_path, name="small", points="axes: {objective: [xtra], seed: [0, 1]}")
    # Lest they end before the second submission.
    cluster.slurm("scontrol", "update", "PartitionName=main", "State=DOWN")
    first = cluster.arvis_scale(*submission(digits, study, tmp_path / "out"))
    assert first.returncode == 0, first.stderr
    second = cluster.arvis_scale(*submission(digits, study, tmp_path / "out"))
    assert "2 of 2 runs are left to" in second.stderr
    cluster.slurm("scontrol", "update", "PartitionName=main", "State=UP")
    cluster.wait_for_no_jobs()
    assert {status.state for status in statuses(tmp_path / "out").values()} == {"completed"}
