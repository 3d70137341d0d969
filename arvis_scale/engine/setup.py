"""What a run needs before its first step: teacher, objective, batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from arvis_scale.config import RunConfig
from arvis_scale.data.faults import REASONS, BadSample
from arvis_scale.data.loader import evaluation_batches, training_batches
from arvis_scale.data.order import SampleOrder
from arvis_scale.data.palette import load_palette, palette_of_images, save_palette
from arvis_scale.data.selection import Selection, StreamedSelection
from arvis_scale.data.streaming import Stream, streamed_batches
from arvis_scale.data.token_manifest import TRAIN, VALIDATION
from arvis_scale.data.token_records import decode
from arvis_scale.data.views import training_view
from arvis_scale.engine.checkpointing.files import checkpoints_newest_first
from arvis_scale.engine.distributed import Processes
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.teacher_tokens import manifest_of, shape_of_tokens, stored_tokens
from arvis_scale.models.build import build_objective
from arvis_scale.models.encoder import Backbone
from arvis_scale.models.igpt import Igpt
from arvis_scale.models.images import normalize
from arvis_scale.models.objective import Objective
from arvis_scale.models.teachers import Teacher, TeacherShape, load_teacher, teacher_shape
from arvis_scale.planning.flops import forward_flops_per_sample, training_flops_per_sample

Batch = dict[str, Tensor]

_logger = logging.getLogger(__name__)


def load_teacher_of(config: RunConfig, device: torch.device) -> Teacher | None:
    """Load the frozen teacher that the objective needs, on `device`; None for none and for stored tokens."""
    if config.objective != "digpt" or config.teacher.tokens is not None:
        return None
    return load_teacher(config.teacher, image_size=config.image_size, patch_size=config.patch_size, device=device)


def teacher_shape_of(config: RunConfig) -> TeacherShape | None:
    """Return the shape of the teacher's tokens without loading it; None for objectives without one."""
    if config.objective != "digpt":
        return None
    manifest = manifest_of(config)
    if manifest is not None:
        return shape_of_tokens(manifest)
    return teacher_shape(config.teacher, image_size=config.image_size, patch_size=config.patch_size)


def write_palette(config: RunConfig, images: Selection, processes: Processes) -> Tensor:
    """Write the palette of the run's training images to its folder, once; every process must call it.

    Before the first checkpoint it is made anew: an earlier start may have had other images. Returns how many images
    could not be used for it, by `REASONS` (int64), as a batch does under `data.on_bad_sample=skip`.
    """
    num_bad = torch.zeros(len(REASONS), dtype=torch.int64)
    if config.objective != "igpt":
        return num_bad
    folder = RunFolder(config.output)
    path = folder.palette

    def count(error: BadSample) -> None:
        num_bad[REASONS.index(error.reason)] += 1

    if processes.is_first and not (path.exists() and checkpoints_newest_first(folder.checkpoints)):
        palette = palette_of_images(
            images.train_split,
            images.some_training_images(),
            num_colors=config.igpt.palette_size,
            resolution=config.igpt.resolution,
            seed=config.data.subset_seed,
            on_skip=count if config.data.on_bad_sample == "skip" else None,
        )
        save_palette(palette, path)
    processes.barrier()
    return num_bad


def encoder_of(config: RunConfig) -> Backbone:
    """Build the objective's encoder alone, on the current default device; no teacher is needed for it."""
    any_shape = TeacherShape(width=1, grid=config.image_size // config.patch_size)
    return objective_of(config, any_shape if config.objective == "digpt" else None).encoder


def objective_of(config: RunConfig, teacher: Teacher | TeacherShape | None) -> Objective:
    """Build the objective on the current default device, weights drawn from `config.seed`; iGPT reads its palette."""
    torch.manual_seed(config.seed)
    objective = build_of(config, teacher)
    if isinstance(objective, Igpt):
        palette = load_palette(RunFolder(config.output).palette, config.igpt.palette_size)
        objective.encoder.set_palette(torch.as_tensor(palette))
    return objective


def build_of(config: RunConfig, teacher: Teacher | TeacherShape | None) -> Objective:
    """Build the objective as the constructors leave it: neither seeded nor with its palette."""
    return build_objective(
        config.objective,
        preset=config.preset,
        image_size=config.image_size,
        patch_size=config.patch_size,
        options=asdict(getattr(config, config.objective)),
        teacher_width=teacher.width if teacher else None,
        teacher_grid=teacher.grid if teacher else None,
    )


@dataclass(frozen=True)
class Preparation:
    """A batch from the loader -> a batch that the objective reads, on the device."""

    device: torch.device
    teacher: Teacher | None

    def __call__(self, batch: Batch) -> Batch:
        images = normalize(batch["images"].to(self.device, non_blocking=True))  # uint8 -> float, B x 3 x H x W
        prepared = {"images": images, "sample_seeds": batch["sample_seeds"].to(self.device, non_blocking=True)}
        if "weights" in batch:
            prepared["weights"] = batch["weights"].to(self.device)
        if self.teacher is not None:
            prepared["teacher_tokens"] = self.teacher(images)  # B x (1 + n) x C
        elif "teacher_tokens" in batch:
            prepared["teacher_tokens"] = self._stored_tokens(batch)
        return prepared

    def _stored_tokens(self, batch: Batch) -> Tensor:
        """Return the tokens that the loader read, `B x (1 + n) x C`; they travel to the device as they are stored."""
        stored = {name.removeprefix("teacher_"): field for name, field in batch.items() if name.startswith("teacher_")}
        return decode({name: field.to(self.device, non_blocking=True) for name, field in stored.items()})


def shapes_of_batch(config: RunConfig, batch_size: int) -> Batch:
    """Return a prepared batch without content, on the current default device: what the objective reads, in shape."""
    side = config.image_size
    shapes = {
        "images": torch.zeros(batch_size, 3, side, side),
        "sample_seeds": torch.zeros(batch_size, dtype=torch.int64),
        "step": torch.zeros((), dtype=torch.int64),
    }
    teacher = teacher_shape_of(config)
    if teacher is not None:
        shapes["teacher_tokens"] = torch.zeros(batch_size, 1 + teacher.grid**2, teacher.width)
    return shapes


def flops_per_sample(config: RunConfig) -> float:
    """Return the FLOPs that the objective takes to train on one image, forward and backward."""
    with torch.device("meta"):
        batch = shapes_of_batch(config, 2)
    return training_flops_per_sample(lambda: build_of(config, teacher_shape_of(config)), batch)


def teacher_flops_per_sample(config: RunConfig, prepare: Preparation) -> float:
    """Return the FLOPs of the teacher's forward pass of one image; 0 where no teacher is in the loop."""
    if prepare.teacher is None:
        return 0.0
    images = torch.zeros(2, 3, config.image_size, config.image_size, device=prepare.device)
    return forward_flops_per_sample(prepare.teacher, images)


def params_of(config: RunConfig) -> dict[str, int]:
    """Return the parameters of the run's encoder and of its whole objective, by the names of result.json."""
    with torch.device("meta"):
        objective = build_of(config, teacher_shape_of(config))
    return {
        "params_encoder": sum(parameter.numel() for parameter in objective.encoder.parameters()),
        "params_total": sum(parameter.numel() for parameter in objective.parameters()),
    }


def evaluation_views(config: RunConfig) -> dict[str, Any]:
    """Return how images are read and what is seen of them, as `evaluation_batches` takes it."""
    data = config.data
    return {
        "image_size": config.image_size,
        "num_workers": data.num_workers,
        "decoding": data.decoding,
        "on_bad_sample": data.on_bad_sample,
    }


def training_views(config: RunConfig) -> dict[str, Any]:
    """Return how images are read and what is seen of them, as `training_batches` and `chosen_views` take it."""
    data = config.data
    return {
        **evaluation_views(config),
        "crop_scale": (data.crop_scale_min, data.crop_scale_max),
        "crop_ratio": (data.crop_ratio_min, data.crop_ratio_max),
        "horizontal_flip": data.horizontal_flip,
    }


def train_batches(
    config: RunConfig, images: Selection, *, rank: int, start_step: int, batches_skipped: int = 0
) -> Iterator[Batch]:
    """Return the micro batches of data-parallel rank `rank` from optimizer step `start_step` to the last.

    Step i reads global batch `i + batches_skipped`, both counted from 0. A stream begins anew instead.
    """
    if isinstance(images, StreamedSelection):
        return _streamed_batches(config, images, rank=rank, start_step=start_step)
    order = images.order(config.seed, config.global_batch_size)
    if rank == 0 and isinstance(order, SampleOrder) and order.num_dropped:
        _logger.info(
            "data.epoch_end=drop: %d of %d images, others in each epoch, are left out",
            order.num_dropped,
            images.unique_images,
        )
    return training_batches(
        images.train_split,
        order,
        **training_views(config),
        global_batch_size=config.global_batch_size,
        micro_batch_size=config.micro_batch_size,
        rank=rank,
        world_size=config.data_parallel_size,
        start_samples=(start_step + batches_skipped) * config.global_batch_size,
        num_samples=(config.num_steps + batches_skipped) * config.global_batch_size,
        tokens=stored_tokens(config, TRAIN),
    )


def _streamed_batches(config: RunConfig, images: StreamedSelection, *, rank: int, start_step: int) -> Iterator[Batch]:
    if rank == 0:
        _logger.warning("%s", images.order_note)
    views = training_views(config)
    num_workers, skips = views.pop("num_workers"), views.pop("on_bad_sample") == "skip"
    stream = Stream(
        images.dataset.urls,
        partial(training_view, **views),
        (config.seed, start_step),
        config.micro_batch_size,
        skips=skips,
        allow_unsafe_shards=config.data.allow_unsafe_shards,
    )
    return streamed_batches(
        stream,
        rank=rank,
        world_size=config.data_parallel_size,
        num_workers=num_workers,
        num_batches=(config.num_steps - start_step) * config.accumulation_steps,
    )


def validation_batches(config: RunConfig, images: Selection, *, rank: int) -> Iterator[Batch]:
    """Return data-parallel rank `rank`'s share of the validation images; a stream may have none."""
    if isinstance(images, StreamedSelection) and len(images.validation_indices) == 0:
        return iter(())
    return evaluation_batches(
        images.validation_split,
        images.validation_indices,
        **evaluation_views(config),
        batch_size=config.micro_batch_size,
        rank=rank,
        world_size=config.data_parallel_size,
        tokens=stored_tokens(config, VALIDATION),
    )
