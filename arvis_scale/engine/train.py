"""The train loop of one run, first to last."""

from __future__ import annotations

import math
import time

import torch
from torch.optim.lr_scheduler import LambdaLR

from arvis_scale.config import RunConfig, save_config
from arvis_scale.data.selection import Selection
from arvis_scale.engine.checkpoints import load_checkpoint, save_checkpoint
from arvis_scale.engine.checks import check_run
from arvis_scale.engine.deepspeed_here import DeepSpeedEngine, initialize
from arvis_scale.engine.distributed import Processes, join_processes
from arvis_scale.engine.heartbeat import recorded_status
from arvis_scale.engine.initial_weights import load_initial_weights
from arvis_scale.engine.loss_window import LossWindow
from arvis_scale.engine.metrics import MetricsLog, Speedometer
from arvis_scale.engine.optimizer import build_optimizer, learning_rate_factor
from arvis_scale.engine.preemption import PreemptionFlag
from arvis_scale.engine.result import finish_run
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.engine.run_lock import exclusive
from arvis_scale.engine.setup import (
    Preparation,
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
    with exclusive(folder, processes):
        status = folder.status().next_attempt(config.num_steps)
        processes.barrier()  # all have read the attempt before one writes the next
        with recorded_status(folder, status, is_first=processes.is_first), PreemptionFlag() as preemption:
            _train(config, folder, images, processes, status, preemption)
    return status


def _train(
    config: RunConfig,
    folder: RunFolder,
    images: Selection,
    processes: Processes,
    status: Status,
    preemption: PreemptionFlag,
) -> None:
    data = images.dataset
    if processes.is_first:
        save_config(config, folder.config)
        named = {"name": data.name, "hash": data.content_hash}
        folder.write_environment(processes.world_size, processes.device.type, named)
    write_palette(config, images, processes)
    prepare = Preparation(processes.device, load_teacher_of(config, processes.device))
    flops = flops_per_sample(config, prepare)
    objective = objective_of(config, prepare.teacher).to(processes.device)
    load_initial_weights(objective, config)
    engine = start_engine(config, objective)
    resumed = load_checkpoint(engine, folder.checkpoints, processes) or {"step": 0, "train_seconds": 0.0, "window": {}}
    step, train_seconds = resumed["step"], resumed["train_seconds"]
    status.step = step
    window = LossWindow(resumed["window"] if processes.is_first else None)
    batches = train_batches(config, images, rank=processes.rank, start_step=step)
    speed = Speedometer(config, flops_per_sample=flops)

    with MetricsLog(folder, step=step, num_steps=config.num_steps, is_first=processes.is_first) as log:
        if step == 0 and processes.is_first:
            log.images(step, mask_pictures(objective))
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
            is_logged = is_due(step, config.log.metrics_every, config.num_steps)
            if is_logged and torch.cuda.is_available():
                torch.cuda.synchronize()  # the window's last steps may still be under way
            seconds = time.perf_counter() - started
            speed.count_step(seconds)
            train_seconds += seconds

            if is_logged:
                means = check_finite(window.mean(processes), step, folder)
                course = {"lr": learning_rate, "grad_norm": float(engine.get_global_grad_norm())}
                samples_seen = float(step * config.global_batch_size)
                log.scalars(step, {"samples_seen": samples_seen, **means, **course, **speed.read()})
                log.say(step, config.num_steps)
            if config.log.validate_every and step % config.log.validate_every == 0 and step < config.num_steps:
                validate(engine, validation_batches(config, images, rank=processes.rank), prepare, processes, log, step)
            preempted = processes.any(preemption.raised_by is not None)
            if preempted or is_due(step, config.checkpoints.every, config.num_steps):
                state = {"step": step, "train_seconds": train_seconds, "window": window.state(processes)}
                check_finite(state["window"], step, folder)
                save_checkpoint(engine, folder.checkpoints, processes, config=config, client_state=state)
            if preempted and step < config.num_steps:
                status.state, status.reason = "preempted", preemption.raised_by or "a signal to another process"
                return

        batches_left = validation_batches(config, images, rank=processes.rank)
        val_loss = validate(engine, batches_left, prepare, processes, log, step)
    finish_run(
        config, folder, engine, objective, images, processes, flops=flops, val_loss=val_loss, seconds=train_seconds
    )
    status.state = "completed"


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


def check_finite(means: dict[str, float], step: int, folder: RunFolder) -> dict[str, float]:
    """Return `means`; raise `ValueError` where a loss since the last line is not a number any more."""
    if not math.isfinite(means.get("loss", 0.0)):
        raise ValueError(
            f"the loss is {means['loss']} by step {step}; remove {folder.path}, or choose another output=, and begin "
            f"again with a lower optimizer.learning_rate"
        )
    return means


def _check_world_size(config: RunConfig, processes: Processes) -> None:
    if processes.world_size != config.parallel.processes:
        raise ValueError(
            f"parallel.processes={config.parallel.processes}, but the launcher started {processes.world_size} processes"
        )
