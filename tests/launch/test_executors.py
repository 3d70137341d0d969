"""What an executor would not run is told in one line before anything is written."""

import os

import pytest

from arvis_scale.launch.executors import executor_of
from arvis_scale.launch.studies.study import load_study
from arvis_scale.launch.submit import submit

STUDY = """
schema_version: 1
name: bad
base: digits
set: {data.shards: shards/digits, samples_seen: 64, preset: pico, data.validation_images: 20}
axes: {objective: [xtra]}
references: false
"""


@pytest.fixture
def study(tmp_path):
    """Return a function: the study with these overrides."""
    (tmp_path / "bad.yaml").write_text(STUDY)
    return lambda *overrides: load_study(tmp_path / "bad.yaml", tmp_path / "out", overrides)


@pytest.fixture
def no_slurm(tmp_path, monkeypatch):
    """A PATH without Slurm's commands."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture
def silent_slurm(tmp_path, monkeypatch):
    """A PATH with commands of Slurm's names that do nothing and say nothing."""
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "srun", "squeue", "scontrol"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), "/bin"]))


def refusal(study):
    with pytest.raises(ValueError) as raised:
        submit(study, ["arvis-scale"])
    assert not study.output.exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_without_slurm_nothing_is_submitted(study, no_slurm):
    text = refusal(study("launch.executor=slurm", "launch.cluster=testcluster"))
    assert "sbatch is not on the PATH" in text


def test_without_a_profile_nothing_is_submitted(study):
    text = refusal(study("launch.executor=slurm"))
    assert "launch.executor=slurm needs launch.cluster" in text


def test_a_profile_without_a_partition_is_refused(study, silent_slurm):
    text = refusal(study("launch.executor=slurm", "launch.cluster=h100"))
    assert "launch.cluster=h100: run xtra-pico-uall-n64-s0 has no partition" in text


def test_debug_refuses_several_processes(study):
    wide = ["parallel.processes=2", "micro_batch_size=32"]
    text = refusal(study("launch.executor=debug", *wide))
    assert "parallel.processes=2, but launch.executor=debug has one process" in text


def test_a_folder_whose_name_submitit_would_change_is_refused(study, silent_slurm, tmp_path):
    load = study("launch.executor=slurm", "launch.cluster=testcluster")
    with pytest.raises(ValueError, match="submitit takes '%j' in a path for something else"):
        executor_of(load).check(load_study(tmp_path / "bad.yaml", tmp_path / "out%j"))
