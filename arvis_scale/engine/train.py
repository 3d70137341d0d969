"""The train loop of one run, first to last."""

from __future__ import annotations

import gc
import math
import time
from typing import Any

import torch

from arvis_scale.config import RunConfig, save_config
from arvis_scale.data.selection import Selection
from arvis_scale.engine.checkpointing.branching import own_seconds
from arvis_scale.engine.checkpointing.checkpoints import Checkpoints
from arvis_scale.engine.checkpointing.files import newest_step
from arvis_scale.engine.checkpointing.pruning import prune_finished_run
from arvis_scale.engine.checks import check_run
from arvis_scale.engine.distributed import Processes, join_processes
from arvis_scale.engine.guarding.guarded_engine import guard_engine
from arvis_scale.engine.guarding.incidents import Incident, no_checkpoint_before, respond_to
from arvis_scale.engine.guarding.stragglers import SlowestRank
from arvis_scale.engine.guarding.watchdog import Watchdog
from arvis_scale.engine.heartbeat import recorded_status
from arvis_scale.engine.logs.loss_window import LossWindow
from arvis_scale.engine.logs.metrics_log import MetricsLog
from arvis_scale.engine.logs.profiler import StepProfiler
from arvis_scale.engine.logs.skipped_samples import SkippedSamples
from arvis_scale.engine.logs.speed import Speedometer
from arvis_scale.engine.out_of_memory import fitted
from arvis_scale.engine.parallel.activation_checkpointing import checkpoint_blocks
from arvis_scale.engine.parallel.compilation import compile_engine
from arvis_scale.engine.parallel.pipeline_engine import PipelineEngine
from arvis_scale.engine.parallel.train_engine import Batch, TrainEngine
from arvis_scale.engine.parallel.zero_engine import ZeroEngine
from arvis_scale.engine.preemption import PreemptionFlag, TimeLimit
from arvis_scale.engine.result import finish_run
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.engine.run_lock import HeldLease, exclusive
from arvis_scale.engine.same_run import lasting
from arvis_scale.engine.setup import (
    Preparation,
    flops_per_sample,
    load_teacher_of,
    objective_of,
    teacher_flops_per_sample,
    teacher_shape_of,
    train_batches,
    validation_batches,
    write_palette,
)
from arvis_scale.engine.validation import validate
from arvis_scale.engine.weights.initial_weights import load_initial_weights
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
    with exclusive(folder, processes) as lease:
        # Of one process: the others' disks may lag behind.
        before, begun_from = processes.tell_all((folder.status(), newest_step(folder.checkpoints)))
        if before.state == "completed":  # by the process that held the folder until now
            return before
        status = before.next_attempt(config.num_steps, num_devices=processes.world_size, begun_from=begun_from)
        config = fitted(config, status.out_of_memory_at)
        limit = TimeLimit(config.guards.time_limit_minutes)
        with recorded_status(folder, status, is_first=processes.is_first), PreemptionFlag(limit) as preemption:
            Trainer(config, folder, images, processes, status, preemption, lease).train()
        if status.state == "completed" and processes.is_first:
            lease.confirm()
            prune_finished_run(folder.checkpoints, config.checkpoints)
    return status


class Trainer:
    """One start of a run: what it builds once, and the loop that it may go through again from a checkpoint."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        images: Selection,
        processes: Processes,
        status: Status,
        preemption: PreemptionFlag,
        lease: HeldLease,
    ) -> None:
        self.config, self.folder, self.images = config, folder, images
        self.processes, self.status, self.preemption, self.lease = processes, status, preemption, lease
        if processes.is_first:
            save_config(lasting(config, folder) if status.begun_from else config, folder.config)
            dataset, subset = images.dataset, images.subset
            data = {"name": dataset.name, "hash": dataset.content_hash, "subset": subset.hash}
            data["order"] = images.order_note
            folder.write_environment(processes.world_size, processes.device.type, data)
        self.skipped_for_palette = write_palette(config, images, processes)
        # Of a pipeline, the processes of the first stage alone read batches.
        reads_batches = processes.rank < config.data_parallel_size
        teacher = load_teacher_of(config, processes.device) if reads_batches else None
        self.prepare = Preparation(processes.device, teacher)
        self.teacher_flops = teacher_flops_per_sample(config, self.prepare)
        self.flops = flops_per_sample(config) + self.teacher_flops
        self.masks, self.engine = start_engine(config, processes)
        self.guards = guard_engine(self.engine, config.guards, processes)
        self.slowest = SlowestRank(processes)
        self.watchdog = Watchdog(
            folder,
            status,
            rank=processes.rank,
            world_size=processes.world_size,
            minutes=config.guards.watchdog_minutes,
            is_symmetric=self.engine.own_work is not None,
        )

    def train(self) -> None:
        """Train, validate and probe, or stop as preempted; `status` says which."""
        checkpoints = Checkpoints(self.folder.checkpoints, self.processes, self.config, self.lease.confirm)
        with checkpoints as self.checkpoints, self.watchdog:
            rewind = None
            while True:
                self._resume(rewind)
                with self._open_log() as self.log, self._open_profiler() as self.profiler:
                    rewind = self._train_to_the_end()
                    if rewind is None and self.status.state == "running":
                        self._finish()
                if rewind is None:
                    return

    def _resume(self, rewind: Incident | None) -> None:
        """Go back to the newest checkpoint, or to the beginning; after bad step `rewind` with the batches after it."""
        resumed = self.checkpoints.load(self.engine.deepspeed)
        if resumed is None and rewind is not None:
            raise no_checkpoint_before(rewind, self.folder)
        resumed = resumed or _BEGINNING
        self.step = self.status.step = resumed["step"]
        self.train_seconds = own_seconds(self.folder, self.step, resumed["train_seconds"])
        # Checkpoints of earlier versions do not have it: as if there had been as many devices from the beginning.
        device_seconds = resumed.get("device_seconds", resumed["train_seconds"] * self.processes.world_size)
        self.device_seconds = own_seconds(self.folder, self.step, device_seconds)
        self.window = LossWindow(resumed["window"] if self.processes.is_first else None)
        self.skipped = SkippedSamples(resumed["skipped"] if self.processes.is_first else None)
        if resumed is _BEGINNING:  # a checkpoint counts those of its palette
            self.skipped.count({"bad_samples": self.skipped_for_palette})
        batches_skipped = rewind.batch + 1 - self.step if rewind else None
        self.guards.load(resumed["guards"], batches_skipped=batches_skipped)
        self.batches = train_batches(
            self.config,
            self.images,
            rank=self.engine.data_rank,
            start_step=self.step,
            batches_skipped=self.guards.batches_skipped,
        )
        self.speed = Speedometer(self.config, flops_per_sample=self.flops, device=self.processes.device)

    def _train_to_the_end(self) -> Incident | None:
        """The train loop. Returns a bad step that the run is to go back from, if one comes first."""
        config, num_steps = self.config, self.config.num_steps
        while self.step < num_steps:
            started = time.perf_counter()
            learning_rate = self.engine.learning_rate
            for loss, parts in self.engine.train_step(self._next_batch):
                self.window.add(loss, parts, is_kept=self.guards.kept)
            self.step += 1
            self.status.step = self.step
            self.guards.end_step(self.step)
            is_logged = is_due(self.step, config.log.metrics_every, num_steps)
            is_validated = is_due(self.step, config.log.validate_every, num_steps)
            is_saved = is_due(self.step, config.checkpoints.every, num_steps) or self.step in config.checkpoints.also_at
            if torch.cuda.is_available() and (is_logged or is_validated or is_saved):
                torch.cuda.synchronize()  # steps may still be under way, whose time is theirs, not the pause's
            seconds = time.perf_counter() - started
            self._count(seconds)
            is_preempted = self._agree_to_stop(seconds)

            if is_logged or is_saved or is_preempted or self.guards.must_read:
                bad = respond_to(self.guards.read(), config, self.images, self.folder, is_first=self.processes.is_first)
                if bad is not None:
                    return bad
            if is_logged:
                self._log(learning_rate)
            if is_validated and self.step < num_steps:  # after the last step `_finish` does
                self._validate()
            if is_saved or is_preempted:
                self._save()
            if is_preempted and self.step < num_steps:
                self.status.state = "preempted"
                self.status.reason = self.preemption.raised_by or "another process's signal or clock"
                return None
        return None

    def _next_batch(self) -> Batch:
        self.watchdog.progress(self.step, "data")
        with self.speed.waiting_for_data():
            raw = next(self.batches)
        self.skipped.count(raw)
        batch = {**self.prepare(raw), "step": torch.tensor(self.step, device=self.processes.device)}
        self.watchdog.progress(self.step, "compute")
        return batch

    def _count(self, seconds: float) -> None:
        self.speed.count_step(seconds)
        self.train_seconds += seconds
        self.device_seconds += seconds * self.processes.world_size
        self.profiler.step()

    def _agree_to_stop(self, step_seconds: float) -> bool:
        self.preemption.look_at_clock(step_seconds=step_seconds, save_seconds=self.checkpoints.seconds_to_disk)
        return self.processes.any(self.preemption.raised_by is not None)

    def _log(self, learning_rate: float) -> None:
        course = {"lr": learning_rate, "grad_norm": self.engine.grad_norm}
        speeds = self.speed.read()
        if self.engine.own_work is not None:
            speeds |= self.slowest.compare(self.engine.own_work.read())
        samples_seen = float(self.step * self.config.global_batch_size)
        means = {**self.window.mean(self.processes), **self.skipped.totals(self.processes)}
        self.log.scalars(self.step, {"samples_seen": samples_seen, **means, **course, **speeds})
        loss = means.get("loss", math.nan)
        self.status.loss = loss if math.isfinite(loss) else None
        self.status.samples_per_second = speeds["images_per_second"]
        self.log.say(self.step, self.config.num_steps)

    def _validate(self) -> float | None:
        batches = validation_batches(self.config, self.images, rank=self.engine.data_rank)
        watched = self.watchdog.over(batches, self.step, "validation")
        return validate(self.engine, watched, self.prepare, self.processes, self.log, self.step)

    def _save(self) -> None:
        self.watchdog.progress(self.step, "checkpoint")
        state = {
            "step": self.step,
            "train_seconds": self.train_seconds,
            "device_seconds": self.device_seconds,
            "window": self.window.state(self.processes),
            "skipped": self.skipped.totals(self.processes),
            "guards": self.guards.state(),
        }
        self.checkpoints.save(self.engine.deepspeed, state)
        self.speed.count_checkpoint(self.checkpoints.save_seconds)

    def _finish(self) -> None:
        val_loss = self._validate()
        self.watchdog.stop()
        self.checkpoints.wait()  # which all must come to: from here on the first process is alone at work
        with self.processes.waiting_for_first():
            probes = finish_run(
                self.config,
                self.folder,
                self.engine,
                self.images,
                self.processes,
                flops=self.flops,
                teacher_flops=self.teacher_flops,
                val_loss=val_loss,
                seconds=self.train_seconds,
                device_seconds=self.device_seconds,
                skipped=self.skipped.totals(self.processes),
            )
        self.log.finish(self.step, probes)
        self.status.state = "completed"

    def _open_log(self) -> MetricsLog:
        log = MetricsLog(self.folder, step=self.step, num_steps=self.config.num_steps, is_first=self.processes.is_first)
        if log.is_new:
            log.begin(self.config, unique_images=self.images.unique_images, images=self.masks)
        return log

    def _open_profiler(self) -> StepProfiler:
        return StepProfiler(self.config.profile, self.folder.profile, rank=self.processes.rank, step=self.step)


_BEGINNING: dict[str, Any] = {"step": 0, "train_seconds": 0.0, "window": {}, "skipped": {}, "guards": {}}


def start_engine(config: RunConfig, processes: Processes) -> tuple[dict[str, torch.Tensor], TrainEngine]:
    """Build the run's objective and hand it to its engine; return pictures of its attention masks too."""
    objective = objective_of(config, teacher_shape_of(config))
    load_initial_weights(objective, config)
    checkpoint_blocks(objective, config.parallel.activation_checkpointing_every)
    masks = mask_pictures(objective) if processes.is_first else {}
    kind = PipelineEngine if config.parallel.strategy == "pipeline" else ZeroEngine
    engine = kind(objective, config, processes)
    compile_engine(engine.deepspeed, config)
    del objective
    gc.collect()  # a checkpointed block refers to itself, and those of other stages would stay until Python tidies up
    return masks, engine


def is_due(step: int, every: int, num_steps: int) -> bool:
    """Return whether something done every `every` steps (0: never) and after the last step is due after `step`."""
    return step == num_steps or (every > 0 and step % every == 0)


def _check_world_size(config: RunConfig, processes: Processes) -> None:
    if processes.world_size != config.parallel.processes:
        raise ValueError(
            f"parallel.processes={config.parallel.processes}, but the launcher started {processes.world_size} processes"
        )
