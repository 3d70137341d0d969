"""`arvis-scale plan`: tables, JSON, one line for bad input."""

import json
import subprocess
import sys

import pytest

from arvis_scale import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; return its status and what it wrote."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["arvis-scale", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return call


SMALL = ("digits", "objective=xtra", "parallel.processes=2", "micro_batch_size=8")


def test_every_strategy_stands_side_by_side(run):
    status, said, _ = run("plan", *SMALL, "--device", "h200")
    assert status == 0
    for word in ("zero0", "zero1", "zero2", "zero3", "offload", "activations", "optimizer", "device hours"):
        assert word in said


def test_json_holds_the_numbers(run):
    status, said, _ = run("plan", *SMALL, "--device", "h200", "--json")
    plan = json.loads(said)
    assert status == 0
    assert plan["schema_version"] == 1
    assert plan["params_total"] > plan["params_encoder"] > 0
    assert plan["device_hours"] == plan["step_seconds"] * plan["num_steps"] * 2 / 3600
    peaks = {each["strategy"]: sum(each["peak"]["parts"].values()) for each in plan["strategies"]}
    assert set(peaks) == {"zero0", "zero1", "zero2", "zero3", "zero3_offload", "pipeline"}
    # ZeRO-3 gathers parameters, but what ZeRO-0 holds twice over is shared.
    optimizer = {each["strategy"]: each["peak"]["parts"]["optimizer"] for each in plan["strategies"]}
    assert optimizer["zero3"] < optimizer["zero1"] * 1.01
    assert optimizer["zero3_offload"] == 0


def test_a_device_that_was_not_measured_is_said_so(run):
    assert "b200 is not calibrated for fp32; an assumption" in " ".join(
        run("plan", *SMALL, "--device", "b200")[1].split()
    )


def test_devices_lower_the_micro_batch_to_what_divides(run):
    status, said, _ = run("plan", "digits", "objective=xtra", "--devices", 32, "--device", "h200", "--json")
    plan = json.loads(said)
    assert status == 0
    assert plan["num_devices"] == 32
    assert {each["strategy"]: each["micro_batch_size"] for each in plan["strategies"]}["zero1"] == 2  # 64 / 32


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("digits",), "objective must be given"),
        (("digits", "objective=xtra", "--device", "h20"), "did you mean 'h200'?"),
        (("digits", "objective=xtra", "--devices", "48"), "not a multiple"),
        (("digits", "objective=xtra", "preset=huge"), "'huge'"),
        (("digits", "objective=xtra", "patch_size=5"), "patch_size=5"),
        (("digits", "objective=digpt", "teacher.checkpoint=nowhere"), "nowhere"),
        (("nowhere.yaml",), "nowhere.yaml does not exist"),
    ],
)
def test_bad_input_ends_with_one_line(run, arguments, said):
    status, _, error = run("plan", *arguments)
    assert status == 2
    assert error.startswith("error: ") and said in error
    assert error.count("\n") == 1


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("parallel.strategy=zero3",), "zero3 started for 512 processes"),
        (("parallel.strategy=pipeline", "parallel.stages=4"), "pipeline started for 512 processes"),
    ],
)
def test_dry_run_for_512_processes(arguments, said):
    command = [sys.executable, "-m", "arvis_scale", "plan", "xtra_b16_in1k", *arguments]
    script = (
        "import resource, subprocess, sys; ended = subprocess.run(sys.argv[1:]).returncode; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(ended)"
    )
    command = [sys.executable, "-c", script, *command, "--devices", "512", "--device", "h200", "--dry-run"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert said in finished.stdout
    assert int(finished.stdout.split()[-1]) * 1024 < 4e9
