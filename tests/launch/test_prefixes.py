"""Runs that differ in length alone: one is trained whole, the others branch from it."""

import pytest

from arvis_scale.config import save_config
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.studies.study import load_study

# 64 images per step: lengths of 10, 20 and 40 steps cool down after 8, 16 and 32.
STUDY = """
schema_version: 1
name: shared
base: digits
set: {data.shards: shards/digits, objective: xtra, preset: nano, optimizer.schedule: warmup_stable_decay,
      optimizer.warmup_samples: 128}
axes: {samples_seen: LENGTHS}
"""


@pytest.fixture
def runs(tmp_path):
    """Return a function: the runs of a study of the given lengths, by their number of steps."""

    def load(lengths="[640, 1280, 2560]", sections=""):
        (tmp_path / "shared.yaml").write_text(STUDY.replace("LENGTHS", lengths) + sections)
        found = load_study(tmp_path / "shared.yaml", tmp_path / "out").runs
        return {run.config.num_steps: run for run in found if run.config.num_steps}

    return load


def test_the_longest_keeps_what_the_others_branch_from(runs):
    found = runs()
    parent = found[40].config
    assert parent.checkpoints.also_at == [8, 16, 32]
    assert (parent.parent, found[40].after, found[40].first_step) == (None, (), 0)
    for steps, first in ((10, 8), (20, 16)):
        assert found[steps].config.parent == parent.output
        assert found[steps].after == (parent.name,)
        assert found[steps].first_step == first
        assert found[steps].config.checkpoints.also_at == []


@pytest.mark.parametrize(
    "sections",
    [
        "rules: {objective: {xtra: {optimizer.schedule: cosine}}}",
        "rules: {objective: {xtra: {optimizer.warmup_samples: null}}}",
        "rules: {samples_seen: {640: {seed: 1}, 1280: {seed: 2}}}",
        "rules: {objective: {xtra: {optimizer.cooldown_fraction: 1, optimizer.warmup_samples: 0}}}",
    ],
)
def test_runs_of_other_schedules_or_other_keys_are_trained_alone(runs, sections):
    for run in runs(sections=sections).values():
        assert (run.config.parent, run.after, run.config.checkpoints.also_at) == (None, (), [])


def test_references_are_no_branches(runs, tmp_path):
    runs()
    references = [run for run in load_study(tmp_path / "shared.yaml", tmp_path).runs if not run.config.num_steps]
    assert len(references) == 2
    assert all(run.config.parent is None and not run.after for run in references)


def begin(*planned):
    for run in planned:
        save_config(run.config, RunFolder(run.config.output).config)


def test_what_was_begun_stays_and_a_longer_run_branches_from_it(runs):
    """The old parent kept a checkpoint before its own cool-down, after 32 of 40 steps."""
    before = runs()
    begin(*before.values())
    found = runs("[640, 1280, 2560, 5120]")
    assert {steps: found[steps] for steps in before} == before
    assert found[80].after == (before[40].config.name,)
    assert found[80].first_step == 32


def test_a_new_length_branches_where_the_old_parent_kept_a_checkpoint(runs):
    begin(*runs("[640, 2560]").values())
    found = runs("[640, 1920, 2560]")
    assert found[30].after == (found[40].config.name,)
    assert found[30].first_step == 8  # 24 would be the last possible one
    assert found[40].config.checkpoints.also_at == [8, 32]


def test_lengths_that_no_old_checkpoint_serves_share_among_themselves(runs):
    begin(runs("[2560]")[40])
    found = runs("[640, 1280, 2560]")
    assert found[40].config.checkpoints.also_at == []
    assert found[20].config.checkpoints.also_at == [8, 16]
    assert found[10].after == (found[20].config.name,)
    assert (found[20].after, found[40].after) == ((), ())


def test_tuned_runs_share_with_those_of_their_own_rate(runs, tmp_path):
    runs(sections="tune: {optimizer.learning_rate: [1e-3, 3e-3]}")
    found = {run.config.name: run for run in load_study(tmp_path / "shared.yaml", tmp_path).runs}
    for rate in ("0.001", "0.003"):
        branch = found[f"xtra-nano-uall-n640-s0-learning_rate_{rate}"]
        assert branch.after == (f"xtra-nano-uall-n2560-s0-learning_rate_{rate}",)
        assert branch.cell == "xtra-nano-uall-n640-s0"
