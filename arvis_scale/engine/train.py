"""The train loop of one run, first to last."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from arvis_scale.config import RunConfig, save_config
from arvis_scale.engine.checkpoints import load_checkpoint, save_checkpoint
from arvis_scale.engine.deepspeed_here import DeepSpeedEngine, initialize
from arvis_scale.engine.distributed import Processes, join_processes
from arvis_scale.engine.heartbeat import recorded_status
from arvis_scale.engine.initial_weights import load_initial_weights
from arvis_scale.engine.metrics import MetricsLog, Speedometer
from arvis_scale.engine.optimizer import build_optimizer, learning_rate_factor
from arvis_scale.engine.preemption import PreemptionFlag
from arvis_scale.engine.result import finish_run
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.engine.setup import (
    Preparation,
    check_run,
    flops_per_sample,
    load_teacher_of,
    objective_of,
    train_batches,
    validation_batches,
    write_palette,
)
from arvis_scale.engine.strategy import deepspeed_config
from arvis_scale.engine.validation import validate
from arvis_scale.models.objective import Objective
from arvis_scale.models.pictures import mask_pictures


def train(config: RunConfig) -> Status:
    """Train, validate and probe one run, going on from its newest checkpoint; a completed run returns at once.

    Called by every process of the run. Returns the status it ends with: completed, or preempted by a signal.
    Raises `ValueError` for a run that cannot be trained, before anything is written.
    """
    folder = RunFolder(config.output)
    images = check_run(config)
    if folder.status().state == "completed":
        return folder.status()
    processes = join_processes()
    _check_world_size(config, processes)
    status = folder.status().next_attempt(config.num_steps)
    processes.barrier()  # all have read the attempt before one writes the next
    with ExitStack() as stack:
        stack.enter_context(recorded_status(folder, status, is_first=processes.is_first))
        preemption = stack.enter_context(PreemptionFlag())
        if processes.is_first:
            save_config(config, folder.config)
            folder.write_environment(processes.world_size, processes.device.type)

        write_palette(config, images, processes)
        prepare = Preparation(processes.device, load_teacher_of(config, processes.device))
        flops = flops_per_sample(config, prepare)
        objective = objective_of(config, prepare.teacher).to(processes.device)
        load_initial_weights(objective, config)
        engine = start_engine(config, objective)
        resumed = load_checkpoint(engine, folder.checkpoints, processes) or {"step": 0, "train_seconds": 0.0}
        step, train_seconds = resumed["step"], resumed["train_seconds"]
        batches = train_batches(config, images, rank=processes.rank, start_step=step)
        log = stack.enter_context(MetricsLog(folder, step=step)) if processes.is_first else None
        if log and step == 0:
            for name, picture in mask_pictures(objective).items():
                log.image(step, name, picture)
        speed = Speedometer(config, flops_per_sample=flops)
        window = LossWindow()

        while step < config.num_steps:
            started = time.perf_counter()
            learning_rate = engine.get_lr()[0]
            for _ in range(config.accumulation_steps):
                with speed.waiting_for_data():
                    batch = prepare(next(batches))
                batch["step"] = torch.tensor(step, device=processes.device)
                loss, details = engine(batch)
                engine.backward(loss)
                engine.step()
                window.add(loss, details)
            step += 1
            status.step = step
            speed.count_step()

            if is_due(step, config.log.metrics_every, config.num_steps):
                scalars = {"samples_seen": float(step * config.global_batch_size), **window.mean(processes)}
                check_finite(scalars["loss"], step)
                scalars |= {"lr": learning_rate, "grad_norm": float(engine.get_global_grad_norm())}
                if log:
                    log.scalars(step, {**scalars, **speed.read()})
                    log.say(step, config.num_steps)
            train_seconds += time.perf_counter() - started
            if config.log.validate_every and step % config.log.validate_every == 0 and step < config.num_steps:
                validate(engine, validation_batches(config, images, rank=processes.rank), prepare, processes, log, step)

            preempted = processes.any(preemption.raised_by is not None)
            if preempted or is_due(step, config.log.checkpoint_every, config.num_steps):
                state = {"step": step, "train_seconds": train_seconds}
                save_checkpoint(
                    engine, folder.checkpoints, processes, client_state=state, keep=config.log.keep_checkpoints
                )
            if preempted and step < config.num_steps:
                status.state, status.reason = "preempted", preemption.raised_by or "a signal to another process"
                return status

        val_loss = validate(
            engine, validation_batches(config, images, rank=processes.rank), prepare, processes, log, step
        )
        finish_run(
            config, folder, engine, objective, images, processes, flops=flops, val_loss=val_loss, seconds=train_seconds
        )
        status.state = "completed"
    return status


def start_engine(config: RunConfig, objective: Objective) -> DeepSpeedEngine:
    """Hand the objective, its optimizer and its schedule to DeepSpeed."""
    optimizer = build_optimizer(objective, config.optimizer)
    schedule = LambdaLR(optimizer, learning_rate_factor(config.optimizer, config.num_steps))
    engine, *_ = initialize(
        model=objective, optimizer=optimizer, lr_scheduler=schedule, config=deepspeed_config(config)
    )
    return engine


def is_due(step: int, every: int, num_steps: int) -> bool:
    """Return whether something done every `every` steps (0: never) and after the last step is due after `step`."""
    return step == num_steps or (every > 0 and step % every == 0)


def check_finite(loss: float, step: int) -> None:
    """Raise `ValueError` where the mean loss since the last line is not a number any more."""
    if not math.isfinite(loss):
        raise ValueError(f"the loss is {loss} by step {step}; lower optimizer.learning_rate")


class LossWindow:
    """Losses and metrics since the last logged line, kept on the device until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, loss: Tensor, details: dict[str, Tensor]) -> None:
        """Add one micro batch."""
        for name, value in {"loss": loss, **details}.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def mean(self, processes: Processes) -> dict[str, float]:
        """Return the means over micro batches and processes, and start anew."""
        names = sorted(self._sums)
        sums = processes.sum([*torch.stack([self._sums[name] for name in names]).tolist(), float(self._count)])
        self._sums, self._count = {}, 0
        return {name: value / sums[-1] for name, value in zip(names, sums[:-1], strict=True)}


def _check_world_size(config: RunConfig, processes: Processes) -> None:
    if processes.world_size != config.parallel.processes:
        raise ValueError(
            f"parallel.processes={config.parallel.processes}, but the launcher started {processes.world_size} processes"
        )
