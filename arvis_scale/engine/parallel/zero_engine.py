"""The objective whole on every process, its state spread over them by ZeRO-0..3."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import record_function

from arvis_scale.config import RunConfig
from arvis_scale.engine.distributed import Processes
from arvis_scale.engine.guarding.stragglers import OwnWork
from arvis_scale.engine.parallel.deepspeed_here import safe_get_full_fp32_param
from arvis_scale.engine.parallel.train_engine import Batch, Outcome, TrainEngine, start_deepspeed
from arvis_scale.models.objective import Objective
from arvis_scale.models.pictures import prediction_pictures

_NUM_PICTURES = 8


class ZeroEngine(TrainEngine):
    """An objective under ZeRO: every process computes all of it for its share of each batch."""

    own_work: OwnWork

    def __init__(self, objective: Objective, config: RunConfig, processes: Processes) -> None:
        self.data_rank = processes.rank
        self.data_world_size = processes.world_size
        self.own_work = OwnWork()
        self._accumulation_steps = config.accumulation_steps
        self.deepspeed = start_deepspeed(objective, config)
        if processes.world_size == 1:
            self._average_over_no_one()
        if not self.deepspeed.zero_optimization():
            self._keep_grad_norm(config.optimizer.clip_grad_norm)

    def _average_over_no_one(self) -> None:
        """Leave out what DeepSpeed does to average over one process: it flattens all gradients and copies them back."""
        stage = self.deepspeed.zero_optimization_stage()
        if stage == 0:
            self.deepspeed.enable_backward_allreduce = False
        elif stage in (1, 2):  # in stage 3 the copy is what makes a share
            self.deepspeed.optimizer.buffered_reduce_fallback = _nothing
            self.deepspeed.optimizer.average_tensor = _nothing

    def _keep_grad_norm(self, clip_grad_norm: float) -> None:
        """Let the clipping of ZeRO-0, which DeepSpeed does and forgets, leave the norm where the other stages do."""
        engine = self.deepspeed

        def clip() -> None:
            engine._global_grad_norm = torch.nn.utils.clip_grad_norm_(engine.module.parameters(), clip_grad_norm)

        engine.clip_fp32_gradients = clip

    def train_step(self, next_batch: Callable[[], Batch]) -> list[Outcome]:
        """See `TrainEngine`: an outcome per micro batch of this process."""
        self._outcomes: list[Outcome] = []
        for _ in range(self._accumulation_steps):
            with self.own_work.measured():
                batch = next_batch()
                with record_function("forward"):
                    loss, parts = self.deepspeed(batch)
            self._outcomes.append((loss.detach(), parts))
            with record_function("backward"):
                self.deepspeed.backward(loss)
            with record_function("optimizer"):
                self.deepspeed.step()
        return self._outcomes

    def losses_so_far(self) -> Tensor:
        """See `TrainEngine`."""
        losses = torch.stack([loss for loss, _ in self._outcomes])
        return torch.stack([losses.sum(), torch.full_like(losses[0], len(losses))])

    def evaluate(self, batch: Batch) -> Tensor:
        """See `TrainEngine`."""
        self.deepspeed.eval()
        loss, _ = self.deepspeed(batch)
        self.deepspeed.train()
        return loss

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """See `TrainEngine`."""
        self.deepspeed.eval()
        pictures = prediction_pictures(
            self.deepspeed.module, {key: value[:_NUM_PICTURES] for key, value in batch.items()}
        )
        self.deepspeed.train()
        return pictures

    def encoder_weights(self) -> dict[str, Tensor]:
        """See `TrainEngine`. Under ZeRO-3 each parameter is gathered from all processes, and complete on all."""
        encoder = self.deepspeed.module.encoder
        weights = {}
        for name, parameter in encoder.named_parameters():
            full = safe_get_full_fp32_param(parameter)
            # ZeRO-0 in fp32 has no master weights: the parameters are what the optimizer updates.
            weights[name] = (parameter if full is None else full).detach().float().cpu().clone()
        for name in encoder.state_dict().keys() - weights.keys():
            weights[name] = encoder.get_buffer(name).float().cpu().clone()
        return weights


def _nothing(*arguments: object, **keywords: object) -> None:
    pass
