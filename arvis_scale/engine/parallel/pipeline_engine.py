"""The objective cut into stages, one per process, with copies of the whole pipeline on shares of each batch."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.profiler import record_function

from arvis_scale.config import RunConfig
from arvis_scale.engine.distributed import Processes
from arvis_scale.engine.parallel.deepspeed_here import PipelineModule, safe_get_full_fp32_param
from arvis_scale.engine.parallel.stages import stage_bounds
from arvis_scale.engine.parallel.train_engine import Batch, Outcome, TrainEngine, start_deepspeed
from arvis_scale.models.objective import Objective
from arvis_scale.models.pipeline import PipelineLayer, first_inputs


class Stages(PipelineModule):
    """DeepSpeed's pipeline of an objective's layers, cut at `bounds` (`num_stages + 1` layer numbers).

    Keeps the layers of this process's own stage alone.
    """

    def __init__(self, layers: list[PipelineLayer], bounds: list[int]) -> None:
        self._bounds = bounds
        with redirect_stdout(io.StringIO()):  # it prints its seeds
            super().__init__(layers, num_stages=len(bounds) - 1)
        # Layers of other stages would stay in memory for as long as the list of all.
        self._layer_specs = [
            layer if self._local_start <= number < self._local_stop else None for number, layer in enumerate(layers)
        ]

    def _partition_layers(self, method: str) -> None:
        self.parts = self._bounds
        self._set_bounds(start=self.parts[self.stage_id], stop=self.parts[self.stage_id + 1])


class PipelineEngine(TrainEngine):
    """An objective in DeepSpeed's pipeline: the first stage reads the batches, the last one learns the losses."""

    def __init__(self, objective: Objective, config: RunConfig, processes: Processes) -> None:
        layers = objective.pipeline_layers()
        self.deepspeed = start_deepspeed(Stages(layers, stage_bounds(config)), config)
        # In a trace, each instruction of the schedule under its name: ForwardPass, SendActivation, ...
        self.deepspeed._INSTRUCTION_MAP = {
            kind: _traced(kind.__name__, method) for kind, method in self.deepspeed._INSTRUCTION_MAP.items()
        }
        grid = self.deepspeed.grid
        self._processes = processes
        self.data_rank = grid.get_data_parallel_id()
        self.data_world_size = grid.data_parallel_size
        self.reads_batches = self.deepspeed.is_first_stage()
        self.holds_losses = self.deepspeed.is_last_stage()
        self._first_layer = layers[0] if self.reads_batches else None

    def train_step(self, next_batch: Callable[[], Batch]) -> list[Outcome]:
        """See `TrainEngine`: one outcome, the mean over micro batches and copies; the parts of a loss stay behind."""

        def inputs() -> Iterator[tuple[tuple[Tensor, ...], tuple[()]]]:
            while True:
                yield (self._inputs(next_batch()) if self.reads_batches else (), ())

        loss = self.deepspeed.train_batch(inputs())
        return [(loss.detach(), {})]

    def losses_so_far(self) -> Tensor:
        """See `TrainEngine`."""
        if not self.holds_losses:
            return torch.zeros(2, device=self.deepspeed.device)
        loss = self.deepspeed.total_loss
        return torch.stack([loss, torch.full_like(loss, self.deepspeed.micro_batches)])

    def evaluate(self, batch: Batch) -> Tensor:
        """See `TrainEngine`."""
        # Shapes are agreed upon at the first batch; these may have another size than training's.
        self.deepspeed.reset_activation_shape()
        inputs = self._inputs(batch)
        losses = self.deepspeed.eval_batch(
            iter([(inputs, ())]), reduce_output=None, bcast_loss=False, num_micro_batches=1
        )
        self.deepspeed.reset_activation_shape()
        self.deepspeed.module.train()
        return losses[0] if self.holds_losses else torch.zeros(())

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Return none: no process holds the whole objective."""
        return {}

    def encoder_weights(self) -> dict[str, Tensor]:
        """See `TrainEngine`. Complete on the first process, empty on the others."""
        local = {}
        for name, parameter in self.deepspeed.module.named_parameters():
            full = safe_get_full_fp32_param(parameter)
            assert full is not None, f"DeepSpeed holds no master weight of {name}"
            local[name] = full.detach().float().cpu()
        for name, value in self.deepspeed.module.state_dict().items():
            local.setdefault(name, value.float().cpu())
        prefix = ".objective.encoder."
        mine = {name.split(prefix)[1]: value for name, value in local.items() if prefix in name}
        return self._gather(mine if self.data_rank == 0 else {})

    def _gather(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return all stages' `weights` together on the first process."""
        is_first = self._processes.is_first
        gathered: list[Any] | None = [None] * self._processes.world_size if is_first else None
        dist.gather_object(weights, gathered, dst=0, group=self._processes.control)
        return {name: value.clone() for part in gathered or [] for name, value in part.items()}

    def _inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        return first_inputs(self._first_layer, batch) if self._first_layer is not None else ()


def _traced(name: str, method: Callable[..., None]) -> Callable[..., None]:
    def instruction(*arguments: Any, **keywords: Any) -> None:
        with record_function(name):
            method(*arguments, **keywords)

    return instruction
