"""The guards of a run's engine, in the place of DeepSpeed's own look at the gradient norm.

Seen in deepspeed 0.19: at every step ZeRO-1 to ZeRO-3 ask on the host whether the norm is finite
(`is_invalid_grad_norm`), which waits for the device, and, where it is not, leave out the update and the schedule's
step.
"""

from __future__ import annotations

import torch
from deepspeed.runtime.zero import stage3, stage_1_and_2
from torch import Tensor
from torch.optim import AdamW

from arvis_scale.config import GuardConfig
from arvis_scale.engine.distributed import Processes
from arvis_scale.engine.guarding.guards import Guards
from arvis_scale.engine.parallel.train_engine import TrainEngine

_asks_on_the_host = stage3.is_invalid_grad_norm


def guard_engine(engine: TrainEngine, config: GuardConfig, processes: Processes) -> Guards:
    """Return the guards of `engine`'s updates.

    With Muon, which has no kernel that could leave an update out, DeepSpeed goes on asking at every step.
    """
    deepspeed = engine.deepspeed
    # ZeRO-0 in fp32 has the optimizer itself, the other stages one of DeepSpeed's around it.
    optimizer = getattr(deepspeed.optimizer, "optimizer", deepspeed.optimizer)
    is_fused = isinstance(optimizer, AdamW)
    for module in (stage_1_and_2, stage3):
        # The name is looked up at each step: this holds for the one engine that a process has at a time.
        module.is_invalid_grad_norm = _take_for_valid if is_fused else _asks_on_the_host
    if is_fused and hasattr(deepspeed.optimizer, "check_grad_overflow"):
        deepspeed.optimizer.check_grad_overflow = False  # the same question about each gradient, in bf16

    def grad_norm() -> Tensor:
        norm = getattr(deepspeed.optimizer, "_global_grad_norm", None)
        return torch.as_tensor(deepspeed.get_global_grad_norm() if norm is None else norm)

    def was_left_out() -> bool:
        if deepspeed.optimizer.overflow:
            deepspeed.lr_scheduler.step()  # DeepSpeed has not: the rate is a function of the step
        return bool(deepspeed.optimizer.overflow)

    return Guards(
        config,
        optimizer,
        processes,
        grad_norm=grad_norm,
        losses=engine.losses_so_far,
        was_left_out=None if is_fused else was_left_out,
    )


def _take_for_valid(norm: object) -> bool:
    return False
