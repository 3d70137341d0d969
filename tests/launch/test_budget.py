"""What a study costs, told before anything runs, and refused when it is too much."""

import pytest
from typer.testing import CliRunner

from arvis_scale.cli import app
from arvis_scale.data.build import build_shards
from arvis_scale.engine.run_plan import plan_runs
from arvis_scale.launch.studies.budget import check_budget, study_cost
from arvis_scale.launch.studies.study import load_study

STUDY = """
schema_version: 1
name: costly
base: digits
set: {objective: xtra, optimizer.schedule: warmup_stable_decay, optimizer.warmup_samples: 128}
axes: {preset: [pico, nano], samples_seen: [1280, 2560], optimizer.weight_decay: [0, 0.1]}
budget: {device_hours: BUDGET}
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digits"
    build_shards("digits", folder)
    return folder


@pytest.fixture
def study_file(tmp_path, digits):
    """Return a function: the study file with a budget."""

    def write(budget):
        text = STUDY.replace("BUDGET", str(budget)).replace("set: {", f"set: {{data.shards: {digits}, ")
        (tmp_path / "costly.yaml").write_text(text)
        return tmp_path / "costly.yaml"

    return write


def test_costs_are_those_of_plan_and_a_branch_pays_for_its_own_part(study_file, tmp_path):
    study = load_study(study_file(1), tmp_path / "out")
    cost = study_cost(study, "h100")
    costs = {run.run.config.name: run for run in cost.runs}
    whole, branch = (costs[f"xtra-nano-uall-n{samples}-s0-weight_decay_0.1"] for samples in (2560, 1280))
    (plan,) = plan_runs([whole.run.config], "h100", with_memory=False).runs
    assert whole.device_hours == pytest.approx(plan.device_hours)
    assert whole.flops == pytest.approx(plan.flops_per_image * 2560)
    assert whole.params == plan.params_total
    assert branch.run.first_step == 16  # of 20
    assert branch.flops == pytest.approx(whole.flops * 4 / 40)
    assert branch.device_hours == pytest.approx(whole.device_hours * 4 / 40)
    assert cost.device_hours == pytest.approx(sum(run.device_hours for run in cost.runs))
    assert cost.device == "h100"


def test_hours_are_for_the_devices_of_the_clusters_profile(study_file, tmp_path):
    slurm = ["launch.executor=slurm", "launch.cluster=a100"]
    assert study_cost(load_study(study_file(1), tmp_path / "out", slurm)).device == "a100"


def test_more_than_the_budget_is_refused_with_both_numbers(study_file, tmp_path):
    study = load_study(study_file(1e-7), tmp_path / "out")
    cost = study_cost(study, "h100")
    with pytest.raises(ValueError, match=r"study costly: .* device hours of h100 .*budget.device_hours=1e-07; leave"):
        check_budget(study, cost)
    check_budget(load_study(study_file(1), tmp_path / "out"), cost)
    check_budget(load_study(study_file("null"), tmp_path / "out"), cost)


def test_a_dry_run_shows_every_run_and_starts_nothing(study_file, tmp_path):
    arguments = ["sweep", "submit", str(study_file(1)), "--output", str(tmp_path / "out"), "--dry-run"]
    said = CliRunner().invoke(app, [*arguments, "--device", "h100"])
    assert said.exception is None, said.output
    for run in load_study(study_file(1), tmp_path / "out").runs:
        assert (run.config.name in said.output) == (run.kind == "train")
    assert "device hours of h100, budget 1; 0 of 11 runs have completed" in said.output
    assert not (tmp_path / "out").exists()
    said = CliRunner().invoke(app, [*arguments, "--device", "h100", "budget.device_hours=1e-9"])
    assert "budget.device_hours=1e-09" in str(said.exception)


def test_a_submission_over_budget_writes_nothing(study_file, tmp_path):
    said = CliRunner().invoke(app, ["sweep", "submit", str(study_file(1e-9)), "--output", str(tmp_path / "out")])
    assert "more than budget.device_hours=1e-09" in str(said.exception)
    assert not (tmp_path / "out").exists()
