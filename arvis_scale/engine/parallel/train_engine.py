"""What the train loop asks of the engine behind it, be the objective whole on every process or cut into stages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from arvis_scale.config import RunConfig
from arvis_scale.engine.guarding.stragglers import OwnWork
from arvis_scale.engine.parallel.deepspeed_here import DeepSpeedEngine, initialize
from arvis_scale.engine.parallel.optimizer import build_optimizer
from arvis_scale.engine.parallel.schedule import build_schedule
from arvis_scale.engine.parallel.strategy import deepspeed_config

Batch = dict[str, Tensor]
# A micro batch's mean loss and its named parts.
Outcome = tuple[Tensor, dict[str, Tensor]]


class TrainEngine(ABC):
    """An objective, its optimizer and its schedule in DeepSpeed's hands.

    Every process calls every method at the same point.
    """

    # DeepSpeed's own engine: it saves and loads.
    deepspeed: DeepSpeedEngine
    # This process's share of each global batch, and how many shares there are.
    data_rank: int
    data_world_size: int
    # Whether this process computes from batches, and whether it learns the losses of the images it was given.
    reads_batches: bool = True
    holds_losses: bool = True
    # What this process does alone, where all do the same; the stages of a pipeline do not.
    own_work: OwnWork | None = None

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.deepspeed.get_lr()[0]

    @property
    def grad_norm(self) -> float:
        """The global gradient norm of the last step, before clipping."""
        return float(self.deepspeed.get_global_grad_norm())

    @abstractmethod
    def train_step(self, next_batch: Callable[[], Batch]) -> list[Outcome]:
        """Do one optimizer step and return its outcomes: the means over them and over processes are the step's own.

        `next_batch` gives this process's micro batches, one after the other, prepared; it is called by processes that
        read batches alone.
        """

    @abstractmethod
    def losses_so_far(self) -> Tensor:
        """Return the sum and the number of this process's micro batch losses in the step under way: 2, on the device.

        Both are 0 where it does not hold losses. For the guards, which judge the step before its update.
        """

    @abstractmethod
    def evaluate(self, batch: Batch) -> Tensor:
        """Return the mean loss of a batch, weighted; it means something where `holds_losses`.

        The batches of all processes have the same size. Must be called without gradients.
        """

    @abstractmethod
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Return pictures of what the objective predicts for a few images of `batch`, `3 x H x W` each, by name."""

    @abstractmethod
    def encoder_weights(self) -> dict[str, Tensor]:
        """Return the encoder's parameters from the optimizer's master weights and its buffers, fp32, on CPU.

        Complete on the first process.
        """


def start_deepspeed(model: nn.Module, config: RunConfig) -> DeepSpeedEngine:
    """Hand `model`, its optimizer and its schedule to DeepSpeed."""
    optimizer = build_optimizer(model, config.optimizer)
    schedule = build_schedule(optimizer, config)
    engine, *_ = initialize(model=model, optimizer=optimizer, lr_scheduler=schedule, config=deepspeed_config(config))
    return engine
