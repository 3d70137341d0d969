"""The DeepSpeed JSON is completed from the run's config and cannot contradict it."""

import pytest

from arvis_scale.config import STRATEGIES, load_config
from arvis_scale.engine.strategy import deepspeed_config

GIVEN = ["name=a", "output=runs/a", "objective=xtra", "data.shards=shards/a"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_batch_triangle_clipping_and_precision_come_from_the_run(strategy):
    run = [f"parallel.strategy={strategy}", "parallel.processes=2", "micro_batch_size=8", "precision=bf16"]
    settings = deepspeed_config(load_config("digits", [*GIVEN, *run, "optimizer.clip_grad_norm=3.0"]))
    assert settings["train_batch_size"] == 64
    assert settings["train_micro_batch_size_per_gpu"] == 8
    assert settings["gradient_accumulation_steps"] == 4
    assert settings["gradient_clipping"] == 3.0
    assert settings["bf16"] == {"enabled": True}
    assert settings["zero_optimization"]["stage"] == int(strategy[-1])


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
