"""DeepSpeed as it runs on this machine. Everything else imports it from here, never by itself.

Two things must be settled before and right after its import: the accelerator, which it otherwise guesses from the build
of torch, and a CPU collective that it would compile, and fail to where there is no C++ compiler.
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
from deepspeed.utils import groups, safe_get_full_fp32_param

__compatible_ops__["deepspeed_shm_comm"] = False

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
