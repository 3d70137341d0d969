"""The train loop of one run, first to last."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from arvis_scale.config import RunConfig, save_config
from arvis_scale.data.selection import Selection
from arvis_scale.engine.activation_checkpointing import checkpoint_blocks
from arvis_scale.engine.branching import own_seconds
from arvis_scale.engine.checkpoint_pruning import prune_finished_run
from arvis_scale.engine.checkpoints import Checkpoints
from arvis_scale.engine.checks import check_run
from arvis_scale.engine.compilation import compile_engine
from arvis_scale.engine.distributed import Processes, join_processes
from arvis_scale.engine.guarded_engine import guard_engine
from arvis_scale.engine.guards import Guards
from arvis_scale.engine.heartbeat import recorded_status
from arvis_scale.engine.incidents import Incident, no_checkpoint_before, respond_to
from arvis_scale.engine.initial_weights import load_initial_weights
from arvis_scale.engine.loss_window import LossWindow
from arvis_scale.engine.metrics_log import MetricsLog
from arvis_scale.engine.pipeline_engine import PipelineEngine
from arvis_scale.engine.preemption import PreemptionFlag, TimeLimit
from arvis_scale.engine.profiler import StepProfiler
from arvis_scale.engine.result import finish_run
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.engine.run_lock import exclusive
from arvis_scale.engine.setup import (
    Preparation,
    flops_per_sample,
    load_teacher_of,
    objective_of,
    teacher_shape_of,
    train_batches,
    validation_batches,
    write_palette,
)
from arvis_scale.engine.speed import Speedometer
from arvis_scale.engine.stragglers import SlowestRank
from arvis_scale.engine.train_engine import Batch, TrainEngine
from arvis_scale.engine.validation import validate
from arvis_scale.engine.watchdog import Watchdog
from arvis_scale.engine.zero_engine import ZeroEngine
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
        limit = TimeLimit(config.guards.time_limit_minutes)
        with recorded_status(folder, status, is_first=processes.is_first), PreemptionFlag(limit) as preemption:
            _train(config, folder, images, processes, status, preemption)
        if status.state == "completed" and processes.is_first:
            prune_finished_run(folder.checkpoints, config.checkpoints)
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
    # Of a pipeline, the processes of the first stage alone read batches.
    reads_batches = processes.rank < config.data_parallel_size
    prepare = Preparation(processes.device, load_teacher_of(config, processes.device) if reads_batches else None)
    flops = flops_per_sample(config, prepare)
    masks, engine = start_engine(config, processes)
    guards = guard_engine(engine, config.guards, processes)
    built = Built(prepare, engine, guards, flops, masks)
    with Checkpoints(folder.checkpoints, processes, config) as checkpoints:
        rewind = None
        while True:
            rewind = _train_from_checkpoint(
                config, folder, images, processes, status, preemption, built, checkpoints, rewind
            )
            if rewind is None:
                return


def _train_from_checkpoint(
    config: RunConfig,
    folder: RunFolder,
    images: Selection,
    processes: Processes,
    status: Status,
    preemption: PreemptionFlag,
    built: Built,
    checkpoints: Checkpoints,
    rewind: Incident | None,
) -> Incident | None:
    """Train from the newest checkpoint to the end of the run, or until it is preempted.

    Returns a bad step that the run is to go back from, if one comes first: called again with it as `rewind`, it goes on
    with the batches after it.
    """
    prepare, engine, guards = built.prepare, built.engine, built.guards
    resumed = checkpoints.load(engine.deepspeed)
    if resumed is None and rewind is not None:
        raise no_checkpoint_before(rewind, folder)
    resumed = resumed or _BEGINNING
    step = resumed["step"]
    train_seconds = own_seconds(folder, step, resumed["train_seconds"])
    status.step = step
    window = LossWindow(resumed["window"] if processes.is_first else None)
    guards.load(resumed["guards"], batches_skipped=rewind.batch + 1 - step if rewind else None)
    batches = train_batches(
        config, images, rank=engine.data_rank, start_step=step, batches_skipped=guards.batches_skipped
    )
    speed = Speedometer(config, flops_per_sample=built.flops, device=processes.device)
    slowest = SlowestRank(processes)

    def next_batch() -> Batch:
        watchdog.progress(step, "data")
        with speed.waiting_for_data():
            raw = next(batches)
        batch = {**prepare(raw), "step": torch.tensor(step, device=processes.device)}
        watchdog.progress(step, "compute")
        return batch

    metrics_log = MetricsLog(folder, step=step, num_steps=config.num_steps, is_first=processes.is_first)
    profiler = StepProfiler(config.profile, folder.profile, rank=processes.rank, step=step)
    watchdog = Watchdog(
        folder,
        status,
        rank=processes.rank,
        world_size=processes.world_size,
        minutes=config.guards.watchdog_minutes,
        is_symmetric=engine.own_work is not None,
    )
    with metrics_log as log, profiler, watchdog:
        if log.is_new:
            log.begin(config, unique_images=len(images.train_indices), images=built.masks)
        while step < config.num_steps:
            started = time.perf_counter()
            learning_rate = engine.learning_rate
            for loss, parts in engine.train_step(next_batch):
                window.add(loss, parts, is_kept=guards.kept)
            step += 1
            guards.end_step(step)
            status.step = step
            is_logged = is_due(step, config.log.metrics_every, config.num_steps)
            pauses = (config.log.validate_every, config.checkpoints.every)
            if torch.cuda.is_available() and (is_logged or any(is_due(step, n, config.num_steps) for n in pauses)):
                torch.cuda.synchronize()  # steps may still be under way, whose time is theirs, not the pause's
            seconds = time.perf_counter() - started
            speed.count_step(seconds)
            train_seconds += seconds
            profiler.step()
            preemption.look_at_clock(step_seconds=seconds, save_seconds=checkpoints.seconds_to_disk)
            preempted = processes.any(preemption.raised_by is not None)
            is_saved = preempted or is_due(step, config.checkpoints.every, config.num_steps)

            if is_logged or is_saved or guards.must_read:
                bad = respond_to(guards.read(), config, images, folder, is_first=processes.is_first)
                if bad is not None:
                    return bad
            if is_logged:
                course = {"lr": learning_rate, "grad_norm": engine.grad_norm}
                samples_seen = float(step * config.global_batch_size)
                speeds = speed.read()
                if engine.own_work is not None:
                    speeds |= slowest.compare(engine.own_work.read())
                log.scalars(step, {"samples_seen": samples_seen, **window.mean(processes), **course, **speeds})
                log.say(step, config.num_steps)
            if config.log.validate_every and step % config.log.validate_every == 0 and step < config.num_steps:
                held_out = validation_batches(config, images, rank=engine.data_rank)
                validate(engine, watchdog.over(held_out, step, "validation"), prepare, processes, log, step)
            if is_saved:
                watchdog.progress(step, "checkpoint")
                state = {"step": step, "train_seconds": train_seconds, "window": window.state(processes)}
                checkpoints.save(engine.deepspeed, {**state, "guards": guards.state()})
                speed.count_checkpoint(checkpoints.save_seconds)
            if preempted and step < config.num_steps:
                status.state, status.reason = "preempted", preemption.raised_by or "another process's signal or clock"
                return None

        held_out = validation_batches(config, images, rank=engine.data_rank)
        val_loss = validate(engine, watchdog.over(held_out, step, "validation"), prepare, processes, log, step)
        watchdog.stop()
        probes = finish_run(
            config, folder, engine, images, processes, flops=built.flops, val_loss=val_loss, seconds=train_seconds
        )
        log.finish(step, probes)
    status.state = "completed"
    return None


_BEGINNING: dict[str, Any] = {"step": 0, "train_seconds": 0.0, "window": {}, "guards": {}}


@dataclass(frozen=True)
class Built:
    """What a run builds once, however often it goes back to a checkpoint."""

    prepare: Preparation
    engine: TrainEngine
    guards: Guards
    # Of one image's forward and backward pass.
    flops: float
    # Pictures of the attention masks by name.
    masks: dict[str, torch.Tensor]


def start_engine(config: RunConfig, processes: Processes) -> tuple[dict[str, torch.Tensor], TrainEngine]:
    """Build the run's objective and hand it to its engine; return pictures of its attention masks too."""
    objective = objective_of(config, teacher_shape_of(config))
    load_initial_weights(objective, config)
    checkpoint_blocks(objective, config.parallel.activation_checkpointing_every)
    masks = mask_pictures(objective) if processes.is_first else {}
    kind = PipelineEngine if config.parallel.strategy == "pipeline" else ZeroEngine
    engine = kind(objective, config, processes)
    compile_engine(engine.deepspeed, config)
    return masks, engine


def is_due(step: int, every: int, num_steps: int) -> bool:
    """Return whether something done every `every` steps (0: never) and after the last step is due after `step`."""
    return step == num_steps or (every > 0 and step % every == 0)


def _check_world_size(config: RunConfig, processes: Processes) -> None:
    if processes.world_size != config.parallel.processes:
        raise ValueError(
            f"parallel.processes={config.parallel.processes}, but the launcher started {processes.world_size} processes"
        )
