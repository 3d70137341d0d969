"""The checks that come before anything is launched or written."""

from __future__ import annotations

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
from arvis_scale.evaluation.probe_run import open_probe_data


def check_run(config: RunConfig) -> Selection:
    """Raise `ValueError` for a run that cannot be trained; return its images.

    Opens the shards' indexes and builds the model without memory.
    """
    images = select_images(config.data, config.unique_images)
    open_probe_data(config)
    check_tokens(config, images)
    deepspeed_config(config)
    stage_bounds(config)
    check_compiler(config)
    with torch.device("meta"):
        check_initial_weights(build_of(config, teacher_shape_of(config)), config)
    folder = RunFolder(config.output)
    begun = check_checkpoints(folder.checkpoints, config)
    if begun or folder.result.exists():
        check_same_run(config, folder)
        check_same_images(images, folder)
    else:
        check_branch(config, images)
    return images
