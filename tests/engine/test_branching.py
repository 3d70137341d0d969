"""What a run can branch from, settled before anything starts."""

import shutil

import pytest

from arvis_scale.config import build_config, load_yaml, recipe_path, save_config
from arvis_scale.data.build import build_shards
from arvis_scale.engine.checkpointing.branching import branch_entries, take_branch_point
from arvis_scale.engine.checkpointing.files import checkpoint_path, find_damage
from arvis_scale.engine.checkpointing.manifest import Layout, Manifest, describe, write_manifest
from arvis_scale.engine.checks import RunChecks, check_run
from arvis_scale.engine.run_folder import RunFolder, Status

STABLE = {
    "objective": "xtra",
    "preset": "nano",
    "global_batch_size": 32,
    "micro_batch_size": 32,
    "samples_seen": 40 * 32,
    "optimizer.schedule": "warmup_stable_decay",
    "optimizer.warmup_samples": 160,
}
SHORT = {"samples_seen": 38 * 32}  # cools down after step 30


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digits"
    build_shards("digits", folder)
    return folder


@pytest.fixture
def config_of(tmp_path, digits):
    def build(name, **changes):
        values = {**STABLE, "name": name, "output": str(tmp_path / name), "data.shards": str(digits), **changes}
        return build_config(load_yaml(recipe_path("digits")), values, "test")

    return build


@pytest.fixture
def parent(tmp_path, config_of):
    """A run of 40 steps with a checkpoint every ten."""
    config = config_of("parent")
    save_config(config, tmp_path / "parent" / "config.yaml")
    for step in (10, 20, 30, 40):
        write_checkpoint(config, step)
    return config


def write_checkpoint(config, step, has_optimizer_state=True):
    checkpoint = checkpoint_path(RunFolder(config.output).checkpoints, step)
    (checkpoint / "state").mkdir(parents=True, exist_ok=True)
    (checkpoint / "state" / "weights.pt").write_bytes(bytes([step]) * 100)
    files = {"state/weights.pt": describe(checkpoint / "state" / "weights.pt")}
    write_manifest(checkpoint, Manifest(step, Layout.of(config), has_optimizer_state=has_optimizer_state, files=files))
    return checkpoint


def test_a_branch_takes_the_newest_checkpoint_before_its_cool_down(parent, config_of):
    branch = config_of("branch", parent=parent.output, **SHORT)
    check_run(branch)
    taken = take_branch_point(branch)
    assert taken == checkpoint_path(RunFolder(branch.output).checkpoints, 30)
    assert find_damage(taken) is None
    assert branch_entries(RunFolder(branch.output)) == {
        "parent": {"name": "parent", "path": parent.output},
        "branched_at_step": 30,
    }


def test_a_longer_branch_takes_one_before_the_cool_down_of_its_parent(parent, config_of):
    """The parent's step 40 has cooled down; the branch's own cool-down would begin later still."""
    longer = config_of("branch", parent=parent.output, samples_seen=80 * 32)
    assert take_branch_point(longer).name == "step_00000030"


def test_a_damaged_checkpoint_is_passed_over(parent, config_of):
    (checkpoint_path(RunFolder(parent.output).checkpoints, 30) / "state" / "weights.pt").write_bytes(b"flipped")
    assert take_branch_point(config_of("branch", parent=parent.output, **SHORT)).name == "step_00000020"


def test_what_is_taken_stays_when_the_parent_removes_it(parent, config_of):
    taken = take_branch_point(config_of("branch", parent=parent.output, **SHORT))
    shutil.rmtree(RunFolder(parent.output).checkpoints)
    assert find_damage(taken) is None


def test_a_branch_that_has_begun_needs_its_parent_no_more(parent, config_of):
    branch = config_of("branch", parent=parent.output, **SHORT)
    take_branch_point(branch)
    save_config(branch, RunFolder(branch.output).config)
    shutil.rmtree(parent.output)
    check_run(branch)


def test_a_run_without_parent_takes_nothing(parent):
    assert take_branch_point(parent) is None
    assert branch_entries(RunFolder(parent.output)) == {"parent": None, "branched_at_step": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "is another run: its seed is 0, this one's 1; only samples_seen and parent may differ"),
        ({"optimizer.learning_rate": 0.5}, "its optimizer.learning_rate is 0.006, this one's 0.5"),
        ({"optimizer.schedule": "cosine"}, "needs optimizer.schedule=warmup_stable_decay and optimizer.warmup_samples"),
        ({"optimizer.warmup_samples": None}, "needs optimizer.schedule=warmup_stable_decay and"),
        ({"samples_seen": 8 * 32}, r"at or before step 6, .*\(it has 10, 20, 30, 40\).*keep_every"),
        ({"parallel.strategy": "zero3"}, "written with parallel.strategy=zero1 parallel.processes=1"),
        ({"output": "SAME"}, "is the run's own folder; choose another output="),
        ({"parent": "nowhere"}, r"parent=nowhere is no run folder \(it has no config.yaml\)"),
    ],
)
def test_what_cannot_be_branched_from_is_refused_in_one_line(parent, config_of, changes, message):
    changes = {"parent": parent.output, **SHORT, **changes}
    if changes.get("output") == "SAME":
        shutil.rmtree(RunFolder(parent.output).checkpoints)
        changes["output"] = parent.output
    with pytest.raises(ValueError, match=message) as refusal:
        check_run(config_of("branch", **changes))
    assert "\n" not in str(refusal.value)


def test_a_parent_to_come_is_not_asked_for_yet(parent, config_of, tmp_path):
    shutil.rmtree(parent.output)
    branch = config_of("branch", parent=parent.output, **SHORT)
    RunChecks().check(branch, is_parent_to_come=True)
    with pytest.raises(ValueError, match="is no run folder"):
        check_run(branch)


def test_a_branch_may_find_its_parent_elsewhere(parent, config_of, tmp_path):
    """It trains as it would alone, so that only what has been begun counts."""
    branch = config_of("branch", parent=parent.output, **SHORT)
    take_branch_point(branch)
    save_config(branch, RunFolder(branch.output).config)
    shutil.move(parent.output, tmp_path / "moved")
    check_run(config_of("branch", parent=str(tmp_path / "moved"), **SHORT))


def test_a_completed_run_needs_no_optimizer_state(parent):
    """A study that is submitted again checks it too, although nothing of it is started."""
    shutil.rmtree(RunFolder(parent.output).checkpoints)
    write_checkpoint(parent, 40, has_optimizer_state=False)
    with pytest.raises(ValueError, match="holds weights alone"):
        check_run(parent)
    RunFolder(parent.output).write_status(Status("completed"))
    check_run(parent)


def test_runs_checked_together_are_refused_as_they_are_alone(parent, config_of):
    checks = RunChecks()
    checks.check(config_of("one"))
    for changes, message in (
        ({"unique_images": 10**9}, "unique_images is 1,000,000,000"),
        ({"data.shards": "nowhere"}, "nowhere"),
        ({"parallel.deepspeed": {"optimizer": {}}}, "parallel.deepspeed.optimizer"),
        ({"initial_weights": "nowhere"}, "initial_weights=nowhere"),
        ({"probe_data.shards": "nowhere"}, "nowhere"),
        ({"output": parent.output, "seed": 3}, "holds another run: seed was 0, now 3"),
    ):
        for _ in range(2):
            with pytest.raises(ValueError, match=message):
                checks.check(config_of("two", **changes))
    checks.check(config_of("three"))


def test_a_checkpoint_without_optimizer_state_is_no_beginning(parent, config_of):
    for step in (10, 20, 30):
        write_checkpoint(parent, step, has_optimizer_state=False)
    with pytest.raises(
        ValueError, match=r"no undamaged checkpoint with its optimizer state .*keep_optimizer_state=all"
    ):
        check_run(config_of("branch", parent=parent.output, **SHORT))
