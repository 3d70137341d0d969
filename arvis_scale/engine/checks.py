"""The checks that come before anything is launched or written."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

from arvis_scale.config import RunConfig
from arvis_scale.data.selection import Selection, select_images
from arvis_scale.engine.checkpointing.branching import check_branch
from arvis_scale.engine.checkpointing.files import check_checkpoints
from arvis_scale.engine.parallel.compilation import check_compiler
from arvis_scale.engine.parallel.stages import stage_bounds
from arvis_scale.engine.parallel.strategy import deepspeed_config
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.same_run import check_same_images, check_same_run
from arvis_scale.engine.setup import build_of, teacher_shape_of
from arvis_scale.engine.teacher_tokens import check_tokens
from arvis_scale.engine.weights.initial_weights import check_initial_weights
from arvis_scale.evaluation.probe_run import check_probe_data

Value = TypeVar("Value")


def check_run(config: RunConfig) -> Selection:
    """Raise `ValueError` for a run that cannot be trained; return its images.

    Opens the shards' indexes and builds the model without memory.
    """
    return RunChecks().check(config)


class RunChecks:
    """`check_run` for many runs: what several of them have in common is looked at once."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def check(self, config: RunConfig, *, is_parent_to_come: bool = False) -> Selection:
        """Raise `ValueError` for a run that cannot be trained; return its images.

        `is_parent_to_come`: the run's parent is trained before it starts; what it branches from is looked at then.
        """
        data = f"{config.data} {config.unique_images}"
        images = self._once(("images", data), lambda: select_images(config.data, config.unique_images))
        self.check_probe_data(config)
        model = _model_of(config)
        self._once(("tokens", data, model), lambda: check_tokens(config, images))
        self._once(("model", model), lambda: _check_model(config))
        deepspeed_config(config)
        check_compiler(config)
        folder = RunFolder(config.output)
        # A completed run needs none of its checkpoints, whose optimizer state may be gone.
        is_completed = folder.status().state == "completed"
        if not is_completed:
            _check_cooldown(config)
        if is_completed or check_checkpoints(folder.checkpoints, config) or folder.result.exists():
            check_same_run(config, folder)
            check_same_images(images, folder)
        elif not is_parent_to_come:
            check_branch(config, images)
        return images

    def check_probe_data(self, config: RunConfig) -> None:
        """Raise `ValueError` when the run could not be probed: images not there, without labels, or too few."""
        self._once(("probe data", repr(config.probe_data)), lambda: check_probe_data(config))

    def _once(self, key: Hashable, look: Callable[[], Value]) -> Value:
        if key not in self._known:
            self._known[key] = look()
        value: Value = self._known[key]
        return value


def _check_cooldown(config: RunConfig) -> None:
    """Raise `ValueError` where a cool-down was asked for and rounds to no step; finished runs stay readable."""
    optimizer, num_steps = config.optimizer, config.num_steps
    is_asked_for = optimizer.schedule == "warmup_stable_decay" and optimizer.cooldown_fraction > 0
    if is_asked_for and num_steps > 0 and optimizer.cooldown_start(num_steps) == num_steps:
        raise ValueError(
            f"optimizer.cooldown_fraction={optimizer.cooldown_fraction} of {num_steps} steps rounds to none, and the "
            "run would not cool down; raise it or samples_seen, or set it to 0"
        )


def _model_of(config: RunConfig) -> str:
    """Return all that decides which model a run builds, how it is cut, and with what it is filled."""
    options = getattr(config, config.objective)
    sizes = (config.image_size, config.patch_size, config.micro_batch_size, config.parallel.stages)
    return f"{config.objective} {config.preset} {sizes} {options} {config.teacher} {config.initial_weights}"


def _check_model(config: RunConfig) -> None:
    if config.parallel.stages > 1:
        stage_bounds(config)
    with torch.device("meta"):
        check_initial_weights(build_of(config, teacher_shape_of(config)), config)
