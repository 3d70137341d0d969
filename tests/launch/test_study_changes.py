"""What a changed study file, or an extended one, does to the study in its folder."""

import pytest
from typer.testing import CliRunner

from arvis_scale.cli import app
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.launch.studies.study import load_study, save_study
from arvis_scale.launch.studies.study_changes import study_changes

STUDY = """
schema_version: 1
name: changing
base: digits
set: {data.shards: shards/digits, samples_seen: 640, objective: xtra, preset: nano, optimizer.weight_decay: 0.05}
axes: {seed: [0, 1], unique_images: [10]}
references: false
"""


@pytest.fixture
def load(tmp_path):
    """Return a function: the study with one text replaced by another."""

    def load(old="", new=""):
        (tmp_path / "changing.yaml").write_text(STUDY.replace(old, new) if old else STUDY)
        return load_study(tmp_path / "changing.yaml", tmp_path / "out")

    return load


def test_a_new_study_and_an_unchanged_one_change_nothing(load):
    assert study_changes(load()) is None
    save_study(load())
    assert study_changes(load()) is None
    assert study_changes(load("references: false", "references: false\nlaunch: {max_parallel: 3}")) is None
    assert study_changes(load("preset: nano,", "preset: nano, log.metrics_every: 3,")) is None


def test_new_removed_and_changed_runs_are_named(load):
    study = load()
    save_study(study)
    RunFolder(study.runs[0].config.output).write_status(Status("completed"))
    changes = study_changes(load("seed: [0, 1]", "seed: [1, 2]"))
    assert changes.added == ("xtra-nano-u10-n640-s2",)
    assert changes.removed == ("xtra-nano-u10-n640-s0",)
    assert changes.num_completed == 1
    changes = study_changes(load("weight_decay: 0.05", "weight_decay: 0.1"))
    assert list(changes.lines()) == [
        "2 runs change in optimizer.weight_decay 0.05 -> 0.1: xtra-nano-u10-n640-s0, xtra-nano-u10-n640-s1"
    ]


def test_a_changed_base_changes_the_runs(load, tmp_path):
    base = "{image_size: 16, patch_size: 8, global_batch_size: 64, micro_batch_size: 64, patch_size: 8}"
    (tmp_path / "mine.yaml").write_text(base)
    save_study(load("base: digits", "base: mine.yaml"))
    assert study_changes(load("base: digits", "base: mine.yaml")) is None
    (tmp_path / "mine.yaml").write_text(base.replace("patch_size: 8", "patch_size: 4"))
    changes = study_changes(load("base: digits", "base: mine.yaml"))
    assert set(changes.changed.values()) == {"patch_size 8 -> 4"}


def test_a_folder_of_another_study_is_refused(load):
    save_study(load())
    with pytest.raises(ValueError, match="holds the study 'changing'; choose another --output"):
        study_changes(load("name: changing", "name: other"))


def test_a_changed_file_with_completed_runs_asks_first(load, tmp_path):
    """Nobody is there to be asked, so that it is refused, with the difference shown."""
    study = load()
    save_study(study)
    RunFolder(study.runs[0].config.output).write_status(Status("completed"))
    load("seed: [0, 1]", "seed: [0, 1, 2]")
    said = CliRunner().invoke(app, ["sweep", "submit", str(tmp_path / "changing.yaml"), "--output", str(study.output)])
    assert "1 runs are new: xtra-nano-u10-n640-s2" in said.output
    assert isinstance(said.exception, ValueError)
    assert "1 runs of the study in" in str(said.exception)
    assert "give --yes to go on" in str(said.exception)
    assert not (study.output / "sweep.json").exists()


@pytest.mark.parametrize(
    ("additions", "seeds"),
    [
        (["seed=[2, 3]"], [0, 1, 2, 3]),
        (["seed+=2"], [0, 1, 2]),
        (["seed+=1", "seed=5"], None),
        (["seed=[1,2]"], [0, 1, 2]),
    ],
)
def test_values_are_added_to_axes(load, additions, seeds):
    save_study(load())
    file = load().output / "study.yaml"
    if seeds is None:
        with pytest.raises(ValueError, match=r"seed\+=1 adds nothing: seed of .* is \[0, 1\] already"):
            load_study(file, file.parent, additions=additions)
        return
    extended = load_study(file, file.parent, additions=additions)
    assert [run.config.seed for run in extended.runs] == seeds
    save_study(extended)
    assert load_study(file, file.parent).runs == extended.runs


def test_only_axes_can_be_extended(load):
    save_study(load())
    file = load().output / "study.yaml"
    with pytest.raises(ValueError, match="preset=micro: preset is no axis of .*, which has seed, unique_images"):
        load_study(file, file.parent, additions=["preset=micro"])
