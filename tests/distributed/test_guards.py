"""Runs whose data, processes or time fail: each guard does what its policy says, and says so."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from arvis_scale.config import load_config
from arvis_scale.data.selection import select_images
from arvis_scale.engine.exit_status import HANGING, PREEMPTED, STOPPED_BY_GUARD
from arvis_scale.engine.logs.metrics_log import read_metrics
from arvis_scale.engine.ports import free_port
from arvis_scale.engine.run_folder import RunFolder

pytestmark = pytest.mark.processes

HERE = Path(__file__).parent
# Read every fourth step and saved every fourth: global batch 5, the sixth step's, is noticed after two good ones.
RUN = {
    "objective": "xtra",
    "preset": "pico",
    "parallel.processes": 2,
    "micro_batch_size": 16,
    "log.metrics_every": 4,
    "checkpoints.every": 4,
}
LONG = {"samples_seen": 40 * 32, "checkpoints.every": 10}
CASES = [
    "zero1:fp32:adamw",
    "zero1:bf16:adamw",
    "zero0:fp32:adamw",
    "zero2:fp32:adamw",
    "zero3:fp32:adamw",
    "zero3_offload:fp32:adamw",
    "pipeline:fp32:adamw",
    "zero1:fp32:muon",
]


def start_ranks(environment, script, *arguments):
    """Start two processes as a launcher does; return them with their output to be read."""
    shared = {**environment, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        subprocess.Popen(
            [sys.executable, str(HERE / script), *map(str, arguments)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


@pytest.fixture(scope="module")
def strategies(environment, digits):
    """What a NaN in one process's images did under each strategy."""
    ranks = start_ranks(environment, "guard_strategies.py", digits, *CASES)
    (out, error), _ = (rank.communicate(timeout=300) for rank in ranks)
    assert ranks[0].returncode == 0, error[-3000:]
    found = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return {line["case"]: line for line in found}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_step_changes_nothing_on_any_process_under_every_strategy(strategies, case):
    found = strategies[case]
    assert found["equal_without_incident"] and found["moves"]
    assert found["unchanged_by_bad_step"] and found["finite"] and found["same_rates"]
    assert found["incidents"] == [[3, "loss or gradient that is not finite"]]


@pytest.mark.parametrize("case", [case for case in CASES if "offload" not in case and "muon" not in case])
def test_the_host_asks_for_no_value_of_the_device_in_a_step(strategies, case):
    assert strategies[case]["reads"] == 0
    assert strategies[CASES[0]]["unguarded_reads"] > 0  # as DeepSpeed does by itself


@pytest.fixture(scope="module")
def faulty(tmp_path_factory, write_run, environment):
    """Run folders by name, after runs whose last process's data went wrong, all in one start; and what they said."""
    root = tmp_path_factory.mktemp("faulty")
    runs = {
        "undisturbed": ("none", "0", {}),
        "long": ("none", "0", LONG),
        "skipped": ("nan", "5", {"guards.non_finite": "skip-batch"}),
        "rewound": ("nan", "5", {"guards.non_finite": "rewind"}),
        "without-window": ("window", "4-6", {}),
        "spike": ("spike", "9", {"guards.loss_spike": "skip-batch", "guards.spike_window": 5}),
        "slow": ("slow", "1", {"log.metrics_every": 1, "samples_seen": 5 * 32}),
        "raised": ("nan", "5", {}),
        "hanging": ("hang", "5", {"guards.watchdog_minutes": 0.15}),
    }
    arguments = []
    for name, (fault, number, changes) in runs.items():
        arguments.append(f"{fault}:{number}:{write_run(root / name, **{**RUN, **changes})}")
    ranks = start_ranks(environment, "train_with_faults.py", *arguments)
    said = [rank.communicate(timeout=300) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [HANGING, HANGING], said[0][1][-3000:]
    return root, said


def incidents(folder):
    return [json.loads(path.read_text()) for path in sorted(RunFolder(folder).incidents.iterdir())]


def weights(folder):
    return load_file(RunFolder(folder).encoder)


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_skip_batch_leaves_the_step_out_and_completes(faulty):
    root, _ = faulty
    assert RunFolder(root / "skipped").status().state == "completed"
    (incident,) = incidents(root / "skipped")
    assert (incident["step"], incident["batch"], incident["policy"]) == (6, 5, "skip-batch")
    assert incident["rank_losses"][0] != "nan" and incident["rank_losses"][1] == "nan"
    config = load_config(str(root / "skipped" / "config.yaml"))
    images = select_images(config.data, config.unique_images)
    positions = torch.arange(5 * 32, 6 * 32).numpy()
    samples = images.order(config.seed, config.global_batch_size).samples(positions)
    assert incident["keys"] == [images.train_split.key(sample) for sample in samples]
    losses = [line["loss"] for line in read_metrics(root / "skipped" / "metrics.jsonl") if "loss" in line]
    undisturbed = [line["loss"] for line in read_metrics(root / "undisturbed" / "metrics.jsonl") if "loss" in line]
    assert losses[0] == undisturbed[0]
    assert losses[2] != undisturbed[2]
    assert losses[2] == pytest.approx(undisturbed[2], rel=0.05)  # one update in twelve is missing


def test_rewind_ends_as_a_run_that_never_saw_the_window(faulty):
    root, _ = faulty
    assert RunFolder(root / "rewound").status().state == "completed"
    (incident,) = incidents(root / "rewound")
    assert (incident["step"], incident["batch"]) == (6, 5)
    assert same(weights(root / "rewound"), weights(root / "without-window"))
    assert not same(weights(root / "rewound"), weights(root / "undisturbed"))
    lines, expected = (read_metrics(root / name / "metrics.jsonl") for name in ("rewound", "without-window"))
    assert [(line["step"], line.get("loss")) for line in lines] == [
        (line["step"], line.get("loss")) for line in expected
    ]


def test_a_loss_spike_is_skipped(faulty):
    root, _ = faulty
    assert RunFolder(root / "spike").status().state == "completed"
    (incident,) = incidents(root / "spike")
    assert (incident["step"], incident["reason"]) == (10, "loss spike")
    assert incident["rank_losses"][1] > 10 * incident["rank_losses"][0]


def test_the_slowest_process_is_named_in_every_line_and_warned_of(faulty):
    root, said = faulty
    lines = read_metrics(root / "slow" / "metrics.jsonl")
    slow = [line for line in lines if line["step"] > 1 and "slowest_rank" in line]
    assert [line["step"] for line in slow] == [2, 3, 4, 5]
    assert all(line["slowest_rank"] == 1 and line["slowest_rank_excess"] > 0.2 for line in slow)
    assert "rank 1 has been " in said[0][1]


def test_raise_ends_the_run_in_one_line_that_names_the_step(faulty):
    root, said = faulty
    status = RunFolder(root / "raised").status()
    assert (status.state, status.exit_status) == ("failed", STOPPED_BY_GUARD)
    assert status.reason.startswith("step 6: loss or gradient that is not finite")
    for output, _ in said:
        assert f"{root / 'raised' / 'config.yaml'} ended with {STOPPED_BY_GUARD}" in output
    assert said[0][1].count(f"error: {status.reason}\n") == 1
    assert "error: step" not in said[1][1]
    assert [path.name for path in (root / "raised" / "checkpoints").glob("step_*")] == ["step_00000004"]


def test_a_process_that_hangs_is_named_and_all_end(faulty):
    root, said = faulty
    folder = RunFolder(root / "hanging")
    status = folder.status()
    assert (status.state, status.exit_status) == ("failed", HANGING)
    assert "rank 1 on " in status.reason and "is behind, at step 5 (data)" in status.reason
    assert f"error: {status.reason}" in said[0][1]
    stacks = (folder.watchdog / "attempt_0001" / "rank_00001.txt").read_text()
    assert "read_a_disk_that_does_not_answer" in stacks
    assert "read_a_disk" not in (folder.watchdog / "attempt_0001" / "rank_00000.txt").read_text()


def test_a_run_whose_process_dies_and_whose_time_ends_goes_on_to_the_same_end(
    tmp_path, faulty, write_run, environment, arvis_scale
):
    root, _ = faulty
    path = write_run(tmp_path / "run", **{**RUN, **LONG})
    folder = RunFolder(tmp_path / "run")
    launcher = subprocess.Popen([sys.executable, "-m", "arvis_scale", "train", path], env=environment)
    wait_for(lambda: (folder.checkpoints / "step_00000010").exists())
    os.kill(process_of_rank(1, launcher.pid), signal.SIGKILL)
    assert launcher.wait(timeout=60) == 1
    status = folder.status()
    assert (status.state, status.exit_status) == ("failed", 1)
    assert status.reason.startswith("the process of rank 1 was ended by SIGKILL; out of memory?")

    limited = arvis_scale("train", path, "guards.time_limit_minutes=0.2")
    assert limited.returncode == PREEMPTED, limited.stderr[-3000:]
    status = folder.status()
    assert (status.state, status.reason, status.exit_status) == ("preempted", "time limit", PREEMPTED)
    assert 10 < status.step < 40
    assert (folder.checkpoints / f"step_{status.step:08d}").is_dir()

    assert arvis_scale("train", path, "guards.time_limit_minutes=null").returncode == 0
    assert same(weights(tmp_path / "run"), weights(root / "long"))


def process_of_rank(rank, launcher):
    """Return the process that the launcher started for `rank`."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    (found,) = [int(pid) for pid in children if f"\0RANK={rank}\0" in Path(f"/proc/{pid}/environ").read_text()]
    return found


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
