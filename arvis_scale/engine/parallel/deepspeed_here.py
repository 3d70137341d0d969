"""DeepSpeed as it runs on this machine. Everything else imports it from here, never by itself.

Three things must be settled before and right after its import: the accelerator, which it otherwise guesses from the
build of torch; a CPU collective that it would compile, and fail to where there is no C++ compiler; and the type of
gradient norms, for which it would copy every gradient to fp64: 20 bytes per parameter of a step that moves 60 in all.
"""

from __future__ import annotations

import os
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
from deepspeed.checkpoint.ds_to_universal import main as convert_to_universal
from deepspeed.ops import __compatible_ops__
from deepspeed.pipe import PipelineModule
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.zero import stage3, stage_1_and_2
from deepspeed.utils import groups, safe_get_full_fp32_param

__compatible_ops__["deepspeed_shm_comm"] = False

for module in (stage_1_and_2, stage3):
    module.get_norm_dtype = lambda: torch.float32  # as torch's own clipping computes it

init_distributed = deepspeed.init_distributed


def initialize(**arguments: Any) -> tuple[Any, ...]:
    """`deepspeed.initialize`, whatever engine this process had before.

    A pipeline leaves its process groups behind in a global, where the next engine would take them for its own.
    """
    groups.mpu = None
    return deepspeed.initialize(**arguments)


__all__ = [
    "DeepSpeedEngine",
    "PipelineModule",
    "TorchCheckpointEngine",
    "convert_to_universal",
    "init_distributed",
    "initialize",
    "safe_get_full_fp32_param",
]
