"""Bad steps, found and left out on the device; the host learns of them where it waits for the device anyway.

torch's fused AdamW reads a device scalar `found_inf` (as mixed precision's gradient scaler sets it) and leaves
parameters, moments and step counts as they are where it is 1. A hook before the optimizer's step sets it from the
step's loss and gradient norm, both reduced over all processes: all of them leave the update out, or none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from arvis_scale.config import GuardConfig
from arvis_scale.engine.distributed import Processes
from arvis_scale.engine.guarding.incidents import LOSS_SPIKE, NON_FINITE, Incident
from arvis_scale.engine.guarding.spikes import SpikeDetector

# What a step was found to be, as the numbers that `_judge` gives.
_VERDICTS = {1: NON_FINITE, 2: LOSS_SPIKE}


class Guards:
    """Watches every optimizer step; every process calls every method at the same point.

    After a bad step under `raise` or `rewind` all later updates are left out too, until `load`: the weights stay those
    before it however late the host looks.
    """

    def __init__(
        self,
        config: GuardConfig,
        optimizer: Optimizer,
        processes: Processes,
        *,
        grad_norm: Callable[[], Tensor],
        losses: Callable[[], Tensor],
        was_left_out: Callable[[], bool] | None = None,
    ) -> None:
        """Guard `optimizer`, torch's fused AdamW; or, with `was_left_out`, an engine that checks its updates itself.

        Asked from within the step, `grad_norm` gives its global gradient norm before clipping, negative or not finite
        for a bad one, and `losses` the sum and the count of this process's micro batch losses (2), both on the device.
        `was_left_out` tells after a step whether the engine did not make its update.
        """
        self.num_incidents = 0
        # Global batches that rewinding has passed over: the step after `step` reads number `step + batches_skipped`.
        self.batches_skipped = 0
        self._processes = processes
        self._grad_norm = grad_norm
        self._losses = losses
        self._was_left_out = was_left_out
        self._policies = {NON_FINITE: config.non_finite, LOSS_SPIKE: config.loss_spike}
        self._spikes = None
        if config.loss_spike is not None:
            self._spikes = SpikeDetector(config.spike_window, config.spike_deviations, processes.device)
        if was_left_out is None:
            assert isinstance(optimizer, AdamW) and optimizer.defaults["fused"], "only this one reads found_inf"
            optimizer.register_step_pre_hook(self._before_update)
        self._begin()

    def _begin(self) -> None:
        self._is_stopped = torch.zeros((), dtype=torch.bool, device=self._processes.device)
        self._verdict: Tensor | None = None
        self._is_kept = ~self._is_stopped
        # The steps since the last reading, each with what `_judge` gave.
        self._records: list[tuple[int, Tensor]] = []
        # Whether a bad step is known on the host already, which should read it at once.
        self.must_read = False

    def _before_update(self, optimizer: Optimizer, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Called once per group of parameters that DeepSpeed updates; the first call in a step judges it."""
        if self._verdict is None:
            self._verdict = self._judge()
        device = next(parameter.device for group in optimizer.param_groups for parameter in group["params"])
        found = (~self._is_kept).to(device, torch.float32)
        optimizer.found_inf = found  # type: ignore[attr-defined]

    def _judge(self) -> Tensor:
        """Return (verdict, gradient norm, sum and count of this process's losses) of the step under way: 4, float64."""
        norm = self._grad_norm().to(self._processes.device).double()
        losses = self._losses().to(self._processes.device).double()
        loss = self._mean_over_processes(losses)
        is_bad = ~(loss.isfinite() & norm.isfinite() & (norm >= 0))
        verdict = is_bad.long()
        if self._spikes is not None:
            verdict = torch.where(is_bad, verdict, 2 * self._spikes.is_spike(loss))
        verdict = torch.where(self._is_stopped, 0, verdict)
        self._is_kept = (verdict == 0) & ~self._is_stopped
        for number, reason in _VERDICTS.items():
            if self._policies[reason] != "skip-batch":
                self._is_stopped = self._is_stopped | (verdict == number)
        if self._spikes is not None:
            self._spikes.add(loss, self._is_kept)
        return torch.stack([verdict.double(), norm, *losses])

    def _mean_over_processes(self, losses: Tensor) -> Tensor:
        if self._processes.world_size > 1:
            losses = losses.clone()
            torch.distributed.all_reduce(losses)  # every process gets the same bits, and comes to the same verdict
        return losses[0] / losses[1]

    def end_step(self, step: int) -> None:
        """Note optimizer step `step`, counted from 1, which the engine has just done."""
        if self._was_left_out is not None:
            self._verdict = self._judge()
            self.must_read = self._was_left_out()
        assert self._verdict is not None, "the optimizer's step was not called"
        self._records.append((step, self._verdict))
        self._verdict = None

    @property
    def kept(self) -> Tensor:
        """Whether the last step's update was made: a boolean scalar on the device."""
        return self._is_kept

    def read(self) -> list[Incident]:
        """Return the bad steps since the last reading; waits for the device."""
        if not self._records:
            return []
        steps = [step for step, _ in self._records]
        rows = torch.stack([record for _, record in self._records]).tolist()
        self._records, self.must_read = [], False
        # The verdicts are the same on all processes, so that all of them come here equally often.
        return [
            self._incident(step, _VERDICTS[int(verdict)], row)
            for step, (verdict, *row) in zip(steps, rows, strict=True)
            if verdict
        ]

    def _incident(self, step: int, reason: str, row: list[float]) -> Incident:
        grad_norm, loss_sum, count = row
        loss_sums, counts = (self._processes.gather(value) for value in (loss_sum, count))
        policy = self._policies[reason]
        assert policy is not None, "spikes are looked for under a policy alone"
        self.num_incidents += 1
        return Incident(
            number=self.num_incidents,
            step=step,
            batch=step - 1 + self.batches_skipped,
            reason=reason,
            policy=policy,
            loss=sum(loss_sums) / sum(counts),
            rank_losses=[value / n if n else math.nan for value, n in zip(loss_sums, counts, strict=True)],
            grad_norm=grad_norm if grad_norm >= 0 else math.nan,
        )

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the guards; waits for the device."""
        losses = self._spikes.state() if self._spikes is not None else []
        return {"num_incidents": self.num_incidents, "batches_skipped": self.batches_skipped, "losses": losses}

    def load(self, state: dict[str, Any], *, batches_skipped: int | None = None) -> None:
        """Go on from a checkpoint's `state`, empty for none; in a run that rewinds, with other `batches_skipped`.

        Incidents after the checkpoint stay counted.
        """
        self.num_incidents = max(self.num_incidents, state.get("num_incidents", 0))
        self.batches_skipped = state.get("batches_skipped", 0) if batches_skipped is None else batches_skipped
        if self._spikes is not None:
            self._spikes.load(state.get("losses", []))
        self._begin()
