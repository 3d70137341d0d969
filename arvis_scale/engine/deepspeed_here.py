"""DeepSpeed as it runs on this machine. Everything else imports it from here, never by itself.

Two things must be settled before and right after its import: the accelerator, which it otherwise guesses from the build
of torch, and a CPU collective that it would compile, and fail to where there is no C++ compiler.
"""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
from deepspeed.ops import __compatible_ops__
from deepspeed.pipe import PipelineModule
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.utils import safe_get_full_fp32_param

__compatible_ops__["deepspeed_shm_comm"] = False

initialize = deepspeed.initialize
init_distributed = deepspeed.init_distributed

__all__ = ["DeepSpeedEngine", "PipelineModule", "init_distributed", "initialize", "safe_get_full_fp32_param"]
