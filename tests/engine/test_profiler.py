"""The steps that are asked for are traced, and no others."""

import gzip
import json

import pytest
import torch
from torch.profiler import record_function

from arvis_scale.config import ProfileConfig
from arvis_scale.engine.logs.profiler import StepProfiler


def train(folder, config, *, num_steps, begun_at=0, rank=0):
    with StepProfiler(config, folder, rank=rank, step=begun_at) as profiler:
        for step in range(begun_at + 1, num_steps + 1):
            with record_function(f"step {step}"):
                torch.ones(8, 8) @ torch.ones(8, 8)
            profiler.step()


def traced_steps(path):
    trace = json.loads(gzip.decompress(path.read_bytes()))
    names = [event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
    steps = [int(name.split()[1]) for name in names if name.startswith("step ")]
    marks = [int(name.split("#")[1]) for name in names if name.startswith("ProfilerStep#")]
    assert marks[: len(steps)] == steps  # a run that ends within the window had begun another one
    return steps


@pytest.mark.parametrize(
    ("start", "steps", "begun_at", "num_steps", "expected"),
    [
        (4, 2, 0, 8, [4, 5]),
        (1, 2, 0, 4, [1, 2]),  # no step before it to throw away
        (4, 3, 4, 8, [5, 6]),  # begun again within the window: what is left
        (3, 1, 2, 8, [3]),
        (4, 9, 0, 6, [4, 5, 6]),  # the run ends within it
    ],
)
def test_the_steps_asked_for_are_traced(tmp_path, start, steps, begun_at, num_steps, expected):
    train(tmp_path, ProfileConfig(start=start, steps=steps), begun_at=begun_at, num_steps=num_steps)
    (path,) = tmp_path.iterdir()
    assert path.name == f"rank_00000.step_{expected[0]:08d}.pt.trace.json.gz"
    assert traced_steps(path) == expected


@pytest.mark.parametrize(
    ("start", "steps", "begun_at"),
    [(2, 0, 0), (9, 3, 0), (5, 1, 0), (1, 2, 2)],  # none asked for; after the run's end, also by one; before its start
)
def test_nothing_is_written_where_no_step_is_traced(tmp_path, start, steps, begun_at):
    train(tmp_path, ProfileConfig(start=start, steps=steps), begun_at=begun_at, num_steps=4)
    assert not list(tmp_path.iterdir())


def test_every_process_has_a_trace_of_its_own(tmp_path):
    for rank in (0, 3):
        train(tmp_path, ProfileConfig(start=2, steps=1), num_steps=3, rank=rank)
    assert {path.name[:10] for path in tmp_path.iterdir()} == {"rank_00000", "rank_00003"}


def test_a_run_that_fails_leaves_the_steps_before(tmp_path):
    with pytest.raises(ZeroDivisionError), StepProfiler(ProfileConfig(2, 5), tmp_path, rank=0, step=0) as profiler:
        for step in (1, 2, 3):
            with record_function(f"step {step}"):
                1 / (3 - step)
            profiler.step()
    (path,) = tmp_path.iterdir()
    assert traced_steps(path) == [2, 3]


@pytest.mark.parametrize(("key", "value"), [("start", 0), ("steps", -1)])
def test_impossible_steps_are_refused(key, value):
    with pytest.raises(ValueError, match=f"profile.{key}={value}"):
        ProfileConfig(**{key: value}).validate()
