"""A study file becomes runs with readable, unique names and complete configurations."""

from importlib import resources
from pathlib import Path

import pytest

from arvis_scale.launch.studies.study import load_study, save_study

STUDY = """
schema_version: 1
name: small
base: digits
set: {data.shards: shards/digits, samples_seen: 640}
axes:
  objective: [xtra, aim]
  unique_images: [10, 100]
points:
  - {objective: xtra, preset: nano, unique_images: 10, seed: 1, parallel.processes: 2, micro_batch_size: 32,
     optimizer.beta2: 0.99}
rules:
  objective:
    aim: {optimizer.learning_rate: 5.0e-4}
launch: {max_parallel: 2}
"""


@pytest.fixture
def study_file(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(STUDY)
    return file


def test_grid_points_and_references(study_file, tmp_path):
    study = load_study(study_file, tmp_path / "out")
    assert [run.config.name for run in study.runs] == [
        "xtra-micro-u10-n640-s0",
        "xtra-micro-u100-n640-s0",
        "aim-micro-u10-n640-s0",
        "aim-micro-u100-n640-s0",
        "xtra-nano-u10-n640-s1-beta2_0.99",
        "untrained-xtra-micro-s0",
        "untrained-aim-micro-s0",
        "untrained-xtra-nano-s1",
        "raw-pixels",
    ]
    assert study.runs[0].config.output == str(tmp_path / "out" / "runs" / "xtra-micro-u10-n640-s0")
    assert study.runs[5].config.samples_seen == 0
    assert study.runs[-1].kind == "raw_pixels"


def test_rules_follow_from_a_value_and_overrides_reach_every_run(study_file, tmp_path):
    study = load_study(study_file, tmp_path, ["samples_seen=64"])
    rates = {run.config.objective: run.config.optimizer.learning_rate for run in study.runs}
    assert rates == {"xtra": 6e-3, "aim": 5e-4}
    assert {run.config.samples_seen for run in study.runs if not run.config.name.startswith(("untr", "raw"))} == {64}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("axes:", "axis:", "unknown key 'axis'; did you mean 'axes'?"),
        ("unique_images: [10, 100]", "unique_image: [10, 100]", "did you mean 'unique_images'?"),
        ("unique_images: [10, 100]", "unique_images: 10", "axes.unique_images must be a list"),
        ("unique_images: [10, 100]", "unique_images: [10, 10]", "two runs are named xtra-micro-u10"),
        ("micro_batch_size: 32", "micro_batch_size: 33", "global_batch_size=64 is not a multiple"),
        ("max_parallel: 2", "max_parallel: 0", "launch.max_parallel=0"),
        ("max_parallel: 2", "executor: kubernetes", "launch.executor='kubernetes'"),
        ("max_parallel: 2", "timeout_hours: 0", "launch.timeout_hours=0.0 must be positive"),
        ("max_parallel: 2", "max_paralel: 2", "unknown key 'launch.max_paralel'; did you mean 'max_parallel'?"),
        ("max_parallel: 2", "max_parallel: two", "launch.max_parallel: Value 'two'"),
        ("{max_parallel: 2}", "[1]", "launch must be a mapping of keys, not [1]"),
        ("set: {data.shards: shards/digits, samples_seen: 640}", "set: [1]", "set must be a mapping of keys, not [1]"),
        ("set: {data.shards: shards/digits,", "set: {1: 2,", "unknown key '1'"),
        ("points:", "points:\n  - 3", "every entry of points must be a mapping of keys, not 3"),
        ("base: digits", "base: digitss", "did you mean 'digits'?"),
        ("base: digits", "base: digits.yaml", "digits.yaml does not exist"),
        ("name: small", "", "name"),
    ],
)
def test_mistakes_are_named_with_the_file_in_one_line(study_file, tmp_path, old, new, said):
    study_file.write_text(STUDY.replace(old, new))
    with pytest.raises(ValueError) as caught:
        load_study(study_file, tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_study_file_that_is_not_there_is_named_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="^.*nowhere.yaml does not exist$"):
        load_study(tmp_path / "nowhere.yaml", tmp_path)


def test_launch_overrides_change_how_runs_start_not_what_they_are(study_file, tmp_path):
    study = load_study(study_file, tmp_path, ["launch.max_parallel=4", "launch.runs_per_job=3"])
    assert (study.launch.max_parallel, study.launch.runs_per_job) == (4, 3)
    save_study(study)
    assert load_study(tmp_path / "study.yaml", tmp_path).launch == study.launch
    with pytest.raises(ValueError, match="unknown key 'launch.paralel'"):
        load_study(study_file, tmp_path, ["launch.paralel=4"])


def test_an_override_of_an_axis_is_refused(study_file, tmp_path):
    with pytest.raises(ValueError, match="objective=aim would change nothing: objective is an axis of"):
        load_study(study_file, tmp_path, ["objective=aim"])


def test_the_copy_in_the_study_folder_needs_nothing_else(study_file, tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("{image_size: 16, patch_size: 8, global_batch_size: 64, micro_batch_size: 64}")
    study_file.write_text(STUDY.replace("base: digits", "base: mine.yaml"))
    study = load_study(study_file, tmp_path / "out")
    save_study(study)
    (tmp_path / "out" / "sweep.json").write_text("{}")  # what makes it a study folder
    for file in (study_file, tmp_path / "mine.yaml"):
        file.unlink()
    monkeypatch.chdir("/")
    again = load_study(tmp_path / "out" / "study.yaml", None)
    assert again.output == tmp_path / "out"
    assert again.runs == study.runs
    save_study(again)
    assert load_study(tmp_path / "out" / "study.yaml", None).runs == study.runs


def test_a_folder_of_another_study_is_not_overwritten(study_file, tmp_path):
    save_study(load_study(study_file, tmp_path / "out"))
    study_file.write_text(STUDY.replace("name: small", "name: other"))
    with pytest.raises(ValueError, match="holds the study 'small'"):
        save_study(load_study(study_file, tmp_path / "out"))


@pytest.mark.parametrize("name", ["demo", "cifar10", "xtra_in1k_lengths"])
def test_studies_that_ship_with_the_package_expand(name, tmp_path):
    file = Path(str(resources.files("arvis_scale.slurm.studies"))) / f"{name}.yaml"
    study = load_study(file, tmp_path, ["data.shards=shards/a", "teacher.kind=pixels"])
    assert study.name == name
    assert len(study.runs) > 10
