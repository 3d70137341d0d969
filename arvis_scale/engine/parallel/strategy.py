"""The DeepSpeed configuration of a run: a strategy's JSON, completed in this one place from the run's own config."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from arvis_scale.config import RunConfig

# Said once, in the run's config; a strategy or an override that says them again could contradict it.
OWNED_BY_RUN = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16",
    "fp16",
    "optimizer",
    "scheduler",
)


def deepspeed_config(config: RunConfig) -> dict[str, Any]:
    """Return the JSON object for `deepspeed.initialize`.

    Raises `ValueError` when `parallel.deepspeed` sets a key that the run's config owns, or another ZeRO stage than the
    strategy's.
    """
    text = (resources.files("arvis_scale.ds_configs") / f"{config.parallel.strategy}.json").read_text()
    settings: dict[str, Any] = json.loads(text)
    stage = settings["zero_optimization"]["stage"]
    for key in OWNED_BY_RUN:
        if key in config.parallel.deepspeed:
            raise ValueError(f"parallel.deepspeed.{key} is derived from the run's config; set it there, not here")
    _merge(settings, config.parallel.deepspeed)
    if settings["zero_optimization"]["stage"] != stage:
        reason = "; DeepSpeed's pipeline engine refuses ZeRO-2 and ZeRO-3" if config.parallel.stages > 1 else ""
        raise ValueError(
            f"parallel.deepspeed.zero_optimization.stage={settings['zero_optimization']['stage']} contradicts "
            f"parallel.strategy={config.parallel.strategy}{reason}; choose the strategy instead"
        )
    if config.optimizer.name == "muon" and stage == 3:
        # DeepSpeed: "Muon and reduce scatter cannot be used together"; stages 1 and 2 see to it themselves.
        settings["zero_optimization"].setdefault("reduce_scatter", False)
    settings.update(
        train_batch_size=config.global_batch_size,
        train_micro_batch_size_per_gpu=config.micro_batch_size,
        gradient_accumulation_steps=config.accumulation_steps,
        # Written always: DeepSpeed clips at 1.0 when the key is missing.
        gradient_clipping=config.optimizer.clip_grad_norm,
        bf16={"enabled": config.precision == "bf16"},
        # Its own progress lines (ours are in metrics.jsonl). Its timer waits for the device at every micro batch.
        steps_per_print=10**9,
        timers={"throughput": {"enabled": False}},
    )
    return settings


def _merge(settings: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(settings.get(key), dict):
            _merge(settings[key], value)
        else:
            settings[key] = value
