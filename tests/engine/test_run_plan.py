"""Plans of runs and of sweeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from arvis_scale.config import RunConfig, build_config
from arvis_scale.engine.run_plan import plan_run, plan_runs
from arvis_scale.engine.setup import build_of, shapes_of_batch
from arvis_scale.planning.flops import training_flops_per_sample


def config(**changes: Any) -> RunConfig:
    values = {
        "name": "a",
        "output": "unused",
        "objective": "xtra",
        "preset": "nano",
        "image_size": 32,
        "patch_size": 8,
        "samples_seen": 6400,
        "global_batch_size": 64,
        "micro_batch_size": 16,
        "data.shards": "unused",
        "xtra.block_side": 2,
        "parallel.processes": 4,
    }
    return build_config({}, {**values, **changes}, "test")


def test_parameters_and_flops_are_those_of_the_model() -> None:
    plan = plan_run(config(), "h200")
    with torch.device("meta"):
        model = build_of(config(), None)
        batch = shapes_of_batch(config(), 2)
    assert plan.params_total == sum(parameter.numel() for parameter in model.parameters())
    assert plan.flops_per_image == training_flops_per_sample(lambda: build_of(config(), None), batch)


def test_steps_take_their_flops_and_hours_add_up() -> None:
    plan = plan_run(config(), "h200")
    per_device = plan.flops_per_image * 64 / 4
    assert plan.step_seconds == pytest.approx(per_device / (plan.speed.fraction * 67e12))
    assert plan.device_hours == pytest.approx(plan.step_seconds * 100 * 4 / 3600)


def test_activation_checkpointing_trades_time_for_memory() -> None:
    changes = {"parallel.deepspeed.zero_optimization.reduce_bucket_size": 1000}  # else the bucket is all that counts
    plain, again = (
        plan_run(config(**changes, **{"parallel.activation_checkpointing_every": every}), "h200") for every in (0, 1)
    )
    assert again.flops_per_image == plain.flops_per_image
    assert plain.step_seconds and again.step_seconds
    assert 1.1 * plain.step_seconds < again.step_seconds < 1.4 * plain.step_seconds
    assert plain.chosen.peak and again.chosen.peak
    assert again.chosen.peak.parts["activations"] < 0.8 * plain.chosen.peak.parts["activations"]


def test_the_largest_micro_batch_is_where_memory_ends() -> None:
    fits = plan_run(config(global_batch_size=2**24), "a100-40").chosen.largest_micro_batch
    assert 16 < fits < 2**22
    for size, does in ((fits, True), (2 * fits, False)):
        peak = plan_run(config(global_batch_size=2**24, micro_batch_size=size), "a100-40").chosen.peak
        assert peak and (peak.total <= 0.92 * 40e9) == does


def test_a_strategy_that_cannot_train_the_run_says_why() -> None:
    strategies = {plan.strategy: plan for plan in plan_run(config(precision="bf16"), "h200").strategies}
    assert strategies["zero0"].peak is None and "bf16" in strategies["zero0"].refused
    assert strategies["zero1"].peak is not None


def test_a_sweep_is_the_sum_of_its_runs() -> None:
    runs = [config(name="a"), config(name="b", samples_seen=12800), config(name="c", preset="micro")]
    sweep = plan_runs(runs, "h200")
    alone = [plan_run(run, "h200") for run in runs]
    assert [run.name for run in sweep.runs] == ["a", "b", "c"]
    assert sweep.device_hours == pytest.approx(sum(plan.device_hours or 0 for plan in alone))
    assert sweep.disk_bytes == pytest.approx(sum(plan.disk.kept for plan in alone))
    assert sweep.peak_bytes == max(plan.chosen.peak.total for plan in alone if plan.chosen.peak)
    quick = plan_runs(runs, "h200", with_memory=False)
    assert (quick.device_hours, quick.disk_bytes, quick.peak_bytes) == (sweep.device_hours, sweep.disk_bytes, 0)


def test_checkpoints_to_branch_from_are_on_the_disk_too() -> None:
    plain = plan_run(config(), "h200").disk
    branched = plan_run(config(**{"checkpoints.also_at": [10, 20]}), "h200").disk
    assert branched.kept == plain.kept + 2 * plain.checkpoint
