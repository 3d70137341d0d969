"""The DeepSpeed JSON is completed from the run's config and cannot contradict it."""

import pytest

from arvis_scale.config import STRATEGIES, load_config
from arvis_scale.engine.parallel.strategy import deepspeed_config

STAGES = {"zero0": 0, "zero1": 1, "zero2": 2, "zero3": 3, "zero3_offload": 3, "pipeline": 1}
GIVEN = ["name=a", "output=runs/a", "objective=xtra", "data.shards=shards/a"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_batch_triangle_clipping_and_precision_come_from_the_run(strategy):
    run = [
        f"parallel.strategy={strategy}",
        "parallel.processes=2",
        "micro_batch_size=8",
        "optimizer.clip_grad_norm=3.0",
    ]
    stages = 2 if strategy == "pipeline" else 1
    precision = "fp32" if strategy == "zero0" else "bf16"
    config = load_config("digits", [*GIVEN, *run, f"parallel.stages={stages}", f"precision={precision}"])
    settings = deepspeed_config(config)
    assert settings["train_batch_size"] == 64
    assert settings["train_micro_batch_size_per_gpu"] == 8
    assert settings["gradient_accumulation_steps"] == 4 * stages
    assert settings["gradient_clipping"] == 3.0
    assert settings["bf16"] == {"enabled": precision == "bf16"}
    assert settings["zero_optimization"]["stage"] == STAGES[strategy]


def test_override_changes_one_key_and_keeps_the_others():
    plain = deepspeed_config(load_config("digits", GIVEN))
    changed = deepspeed_config(
        load_config("digits", [*GIVEN, "parallel.deepspeed.zero_optimization.reduce_bucket_size=7"])
    )
    plain["zero_optimization"]["reduce_bucket_size"] = 7
    assert changed == plain


@pytest.mark.parametrize("key", ["gradient_clipping=1.0", "train_batch_size=4", "zero_optimization.stage=3"])
def test_override_that_contradicts_the_run_is_refused(key):
    with pytest.raises(ValueError, match=key.split("=")[0]):
        deepspeed_config(load_config("digits", [*GIVEN, f"parallel.deepspeed.{key}"]))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["strategy=zero3", "stages=2"], "refuses ZeRO-2 and ZeRO-3"),
        (["strategy=pipeline", "stages=2", "deepspeed.zero_optimization.stage=3"], "refuses ZeRO-2 and ZeRO-3"),
        (["strategy=zero1", "stages=2"], "take parallel.strategy=pipeline"),
        (["strategy=pipeline"], "needs parallel.stages=2 or more"),
        (["strategy=pipeline", "stages=3"], "not a multiple of parallel.stages=3"),
    ],
)
def test_stages_that_cannot_be_had_are_refused_with_the_reason(overrides, reason):
    run = [f"parallel.{override}" for override in ["processes=2", *overrides]]
    with pytest.raises(ValueError, match=reason):
        deepspeed_config(load_config("digits", [*GIVEN, *run]))


def test_zero0_in_bf16_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="empty step"):
        load_config("digits", [*GIVEN, "parallel.strategy=zero0", "precision=bf16"])
