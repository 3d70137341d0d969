"""A study file becomes runs with readable, unique names and complete configurations."""

import pytest

from arvis_scale.launch.study import load_study, save_study

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
        "untrained-xtra-micro",
        "untrained-aim-micro",
        "untrained-xtra-nano",
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
        ("base: digits", "base: digitss", "did you mean 'digits'?"),
    ],
)
def test_mistakes_are_named_with_the_file_in_one_line(study_file, tmp_path, old, new, said):
    study_file.write_text(STUDY.replace(old, new))
    with pytest.raises(ValueError) as caught:
        load_study(study_file, tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_study_is_not_overwritten(study_file, tmp_path):
    save_study(load_study(study_file, tmp_path / "out"))
    study_file.write_text(STUDY.replace("name: small", "name: other"))
    with pytest.raises(ValueError, match="holds the study 'small'"):
        save_study(load_study(study_file, tmp_path / "out"))
