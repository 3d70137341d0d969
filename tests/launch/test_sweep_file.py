"""sweep.json says which job has which run, and is read back as it was written."""

import json

import pytest

from arvis_scale.launch.sweep_file import Budget, Sweep, SweepRun, TuneRule, read_sweep, write_sweep


def test_a_sweep_is_read_back_as_it_was_written(tmp_path):
    runs = (SweepRun("a", "train", "12_0", "cell"), SweepRun("raw-pixels", "raw_pixels"))
    sweep = Sweep(
        "study", "slurm", "mine.yaml", ("one", "two"), TuneRule(("optimizer.learning_rate",)), Budget(8.0, 4.5),
        "code/12ab", "13", {"tokens": "11"}, runs,
    )  # fmt: skip
    write_sweep(tmp_path, sweep)
    assert read_sweep(tmp_path) == sweep
    assert json.loads((tmp_path / "sweep.json").read_text())["tune"] == {
        "keys": ["optimizer.learning_rate"], "by": "val_loss",
    }  # fmt: skip


def test_jobs_of_some_runs_replace_their_earlier_ones():
    sweep = Sweep("study", runs=(SweepRun("a", "train", "1"), SweepRun("b", "train"), SweepRun("c", "train")))
    assert sweep.with_jobs({"a": "2_0", "b": "2_1"}).jobs == {"a": "2_0", "b": "2_1"}


def test_a_sweep_of_the_first_version_is_read(tmp_path):
    runs = [{"name": "a", "job_id": "17", "config": {}}, {"name": "raw-pixels", "job_id": None, "config": {}}]
    old = {"schema_version": 1, "study": "old", "commands": ["x"], "runs": runs}
    (tmp_path / "sweep.json").write_text(json.dumps(old))
    sweep = read_sweep(tmp_path)
    assert (sweep.study, sweep.executor, sweep.jobs) == ("old", "local", {"a": "17"})
    assert [run.kind for run in sweep.runs] == ["train", "raw_pixels"]


def test_a_folder_without_one_is_no_study_folder(tmp_path):
    with pytest.raises(ValueError, match="is not a study folder: sweep.json is missing"):
        read_sweep(tmp_path)
