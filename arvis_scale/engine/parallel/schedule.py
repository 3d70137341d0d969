"""The learning rate of every step, as a fraction of its peak."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from arvis_scale.config import OptimizerConfig, RunConfig


def build_schedule(optimizer: Optimizer, config: RunConfig) -> LambdaLR:
    """Return the run's schedule; every group of `optimizer` follows it in proportion to its own peak rate."""
    factor = learning_rate_factor(config.optimizer, config.num_steps, global_batch_size=config.global_batch_size)
    return LambdaLR(optimizer, factor)


def learning_rate_factor(config: OptimizerConfig, num_steps: int, *, global_batch_size: int) -> Callable[[int], float]:
    """Return step -> learning rate as a fraction of the peak, for steps 0..num_steps-1.

    A line from the initial rate up to the peak, reached after the warm-up; then down to the final rate, reached at the
    last step: by a half cosine, or with `warmup_stable_decay` by `1 - sqrt(progress)` (arXiv 2405.18392, which finds it
    better than a line) over the last steps alone, the rate being the peak until the cool-down's first step. A cool-down
    of one step has the final rate there.
    """
    warmup_steps = config.warmup_steps(num_steps, global_batch_size)
    is_cosine = config.schedule == "cosine"
    decay_start = warmup_steps if is_cosine else config.cooldown_start(num_steps)
    initial = config.initial_learning_rate / config.learning_rate
    final = config.final_learning_rate / config.learning_rate

    def factor(step: int) -> float:
        if step < warmup_steps:
            return initial + (1.0 - initial) * step / warmup_steps
        if not is_cosine and decay_start <= num_steps - 1 <= step:
            return final
        progress = max(0, step - decay_start) / max(1, num_steps - 1 - decay_start)
        progress = min(1.0, progress)
        remaining = 0.5 * (1.0 + math.cos(math.pi * progress)) if is_cosine else 1.0 - math.sqrt(progress)
        return final + (1.0 - final) * remaining

    return factor
