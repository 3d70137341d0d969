"""Runs share jobs so that all slots end at about the same time; jobs share GPUs, their processes never."""

from dataclasses import replace

import pytest

from arvis_scale.launch.executors.packing import choose_gpus, pack_jobs
from arvis_scale.launch.studies.resources import Resources
from arvis_scale.launch.studies.study import load_study

STUDY = """
schema_version: 1
name: packing
base: digits
set: {data.shards: shards/digits, samples_seen: 640}
axes:
  objective: [xtra, aim]
  preset: [nano, micro]
  unique_images: [1, 2, 3, 4]
points:
  - {objective: xtra, preset: mini, unique_images: 1, parallel.processes: 2, micro_batch_size: 32}
references: false
"""


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "packing.yaml").write_text(STUDY)
    return load_study(tmp_path / "packing.yaml", tmp_path).runs


@pytest.mark.parametrize(
    ("runs_per_job", "num_slots", "sizes"),
    [
        (16, 2, [1, 8, 8]),
        (8, 2, [1, 8, 8]),
        (7, 2, [1, 4, 4, 4, 4]),
        (1, 2, [1] * 17),
        (100, 1, [1, 16]),
        (2, 64, [1] * 17),
    ],
)
def test_every_run_is_in_one_job_and_jobs_fill_the_slots(runs, runs_per_job, num_slots, sizes):
    jobs = pack_jobs(runs, runs_per_job, num_slots=num_slots)
    assert [len(job) for job in jobs] == sizes
    assert sorted(run.config.name for job in jobs for run in job) == sorted(run.config.name for run in runs)
    assert jobs[0][0].config.parallel.processes == 2


def test_large_and_small_models_are_spread_evenly(runs):
    _, first, second = pack_jobs(runs, 8, num_slots=2)
    presets = [sorted(run.config.preset for run in job) for job in (first, second)]
    assert presets[0] == presets[1]


def test_no_run_shares_a_job_with_one_that_it_waits_for_nor_comes_before_it(runs):
    first, second, third, *others = runs
    second = replace(second, after=(first.config.name,))
    third = replace(third, after=(second.config.name, "completed-long-ago"))
    jobs = [[run.config.name for run in job] for job in pack_jobs([third, second, first, *others], 100, num_slots=1)]
    places = [next(place for place, job in enumerate(jobs) if run.config.name in job) for run in (first, second, third)]
    assert places[0] < places[1] < places[2]


def test_runs_that_ask_for_different_resources_share_no_job(runs):
    greedy = [replace(run, resources=Resources(memory_gb=64.0)) for run in runs[:3]]
    jobs = pack_jobs([*greedy, *runs[3:]], 100, num_slots=1)
    for job in jobs:
        assert len({run.resources for run in job}) == 1


def test_the_processes_of_a_job_have_a_gpu_each_and_jobs_spread_over_all():
    gpus = ["0", "1", "2"]
    assert choose_gpus(gpus, [], 2) == ["0", "1"]
    assert choose_gpus(gpus, [["0", "1"]], 1) == ["2"]
    assert choose_gpus(gpus, [["0"], ["2"], ["2"], ["0"]], 2) == ["1", "0"]
    assert choose_gpus([], [[], []], 2) == []


def test_more_processes_than_gpus_are_refused():
    with pytest.raises(ValueError, match="2 processes need as many GPUs; this machine has 1"):
        choose_gpus(["0"], [], 2)
