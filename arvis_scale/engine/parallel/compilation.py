"""torch.compile, where a run asks for it and nowhere else."""

from __future__ import annotations

import os
import shutil

import torch

from arvis_scale.config import RunConfig
from arvis_scale.engine.parallel.deepspeed_here import DeepSpeedEngine


def check_compiler(config: RunConfig) -> None:
    """Raise `ValueError` when the run shall be compiled and there is no C++ compiler to do it."""
    compiler = os.environ.get("CXX", "g++")  # as torch looks for it
    if config.parallel.compile and shutil.which(compiler) is None:
        raise ValueError(
            f"parallel.compile=true needs a C++ compiler, and there is no {compiler}; install one, name it in CXX, or "
            f"set parallel.compile=false"
        )


def compile_engine(engine: DeepSpeedEngine, config: RunConfig) -> None:
    """Compile the engine's objective at its next forward pass, in one graph as far as ZeRO's hooks allow.

    DeepSpeed's Muon compiles its own kernels, with every run; here it does so with the objective or not at all.
    """
    torch.compiler.set_stance("default" if config.parallel.compile else "force_eager")
    if config.parallel.compile:
        engine.compile()
