"""`shards tokenize`: a run's teacher over the views of its images, once, into a token folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from arvis_scale.config import RunConfig, build_config, load_yaml, parse_override, recipe_path
from arvis_scale.data.loader import Batch, chosen_views, evaluation_batches
from arvis_scale.data.selection import Selection, select_images
from arvis_scale.data.teacher_tokens import view_seeds
from arvis_scale.data.token_manifest import TRAIN, VALIDATION, TokenFile, TokenManifest, TokenPart
from arvis_scale.data.token_records import TOKEN_PRECISIONS, DirectionError, decode, encode, record_type
from arvis_scale.data.token_writing import EncodedViews, TokenWriter, open_writer
from arvis_scale.engine.setup import evaluation_views, load_teacher_of, teacher_shape_of, training_views
from arvis_scale.engine.teacher_tokens import identity_of, views_of, views_remark
from arvis_scale.models.images import normalize
from arvis_scale.models.teachers import Teacher
from arvis_scale.models.teachers.choice import teacher_precision

# What a killed command loses at most, and one file of many for a large set.
FILE_BYTES = 2**29
# More than this is stored only when it was confirmed.
UNCONFIRMED_BYTES = 10e9
# Keys that a run must have and its tokens do not depend on.
_UNNEEDED = {"name": "tokens", "output": "tokens", "objective": "digpt", "samples_seen": 0}

# Called with the stage, the views done, and their total.
TokenizeProgress = Callable[[str, int, "int | None"], None]
_Samples = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tokenization:
    """Tokens to be made: of which run and images, what they will be, where they will lie."""

    config: RunConfig
    images: Selection
    device: torch.device
    manifest: TokenManifest
    folder: Path

    def summary(self) -> str:
        """What will be stored, in words."""
        manifest = self.manifest
        train, validation = manifest.parts[TRAIN], manifest.parts[VALIDATION]
        return (
            f"{self.folder}: {train.num_images:,} images x {train.views} views + {validation.num_images:,} validation "
            f"images, {manifest.num_tokens} x {manifest.width} in {manifest.precision} each "
            f"({manifest.record_type.itemsize:,} bytes): {manifest.num_bytes / 1e9:,.3g} GB; "
            f"{views_remark(self.config, manifest)}"
        )

    def check_size(self, *, confirmed: bool) -> None:
        """Raise `ValueError` for tokens of much storage that nobody has confirmed."""
        if self.manifest.num_bytes > UNCONFIRMED_BYTES and not confirmed:
            raise ValueError(
                f"{self.manifest.num_bytes / 1e9:,.3g} GB is more than {UNCONFIRMED_BYTES / 1e9:.0f} GB; "
                "store it with --yes, or take fewer --views, --precision int8 or a smaller unique_images"
            )

    def outcome(self, manifest: TokenManifest) -> str:
        """What was stored, how exact it is, and how to train from it, in words."""
        error = manifest.error
        return (
            f"{self.folder}: {error.num_tokens:,} tokens, directions off by {error.mean:.2g} in the mean and "
            f"{error.largest:.2g} at most; a decoder's loss is off by less than twice that; "
            f"train with teacher.tokens={self.folder}"
        )


def load_tokenization(
    shards: Path, config: str, overrides: Sequence[str], *, views: int, precision: str, folder: Path | None
) -> Tokenization:
    """Return the plan for the images of `shards` and the teacher and views of a YAML file or recipe."""
    path = recipe_path(config)
    values = load_yaml(path)
    given = {key: value for key, value in _UNNEEDED.items() if key not in values}
    fixed = {"data.shards": str(shards), "data.streaming": False, "teacher.tokens": None}
    run = build_config(values, {**given, **dict(map(parse_override, overrides)), **fixed}, str(path))
    return plan_tokenization(run, views=views, precision=precision, folder=folder)


def plan_tokenization(config: RunConfig, *, views: int, precision: str, folder: Path | None) -> Tokenization:
    """Return what would be stored, without loading the teacher; by default beside the run's shards.

    Raises `ValueError` for a run without a teacher, and for images, weights and options that are no good.
    """
    if config.objective != "digpt":
        raise ValueError(f"objective={config.objective} has no teacher; only digpt has one")
    if views < 1:
        raise ValueError(f"--views {views} must be at least 1")
    if precision not in TOKEN_PRECISIONS:
        raise ValueError(f"--precision {precision!r} is not known; one of {', '.join(TOKEN_PRECISIONS)}")
    assert config.teacher.tokens is None, "these are what is made"
    images = select_images(config.data, config.unique_images)
    shape = teacher_shape_of(config)
    assert shape is not None, "D-iGPT has a teacher"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    made_with = {**identity_of(config.teacher), "teacher.precision": teacher_precision(config.teacher, device)}
    num_tokens = 1 + shape.grid**2
    record = record_type(precision, num_tokens, shape.width)
    samples = _samples(images)
    manifest = TokenManifest(
        made_with={**made_with, **views_of(config, images, config.teacher.kind)},
        seed=config.seed,
        precision=precision,
        num_tokens=num_tokens,
        width=shape.width,
        images_per_file=max(1, FILE_BYTES // (views * record.itemsize)),
        parts={TRAIN: TokenPart.of(samples[TRAIN], views), VALIDATION: TokenPart.of(samples[VALIDATION], 1)},
    )
    return Tokenization(config, images, device, manifest, folder or _default_folder(config, manifest))


def tokenize(plan: Tokenization, progress: TokenizeProgress | None = None) -> TokenManifest:
    """Store the tokens, or what is missing of them; return what the folder then holds.

    Raises `ValueError` when the folder holds something else, when the disk has too little room, and when an image
    cannot be read; what was stored until then stays.
    """
    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    with open_writer(plan.folder, plan.manifest, _samples(plan.images)) as writer:
        if writer.manifest.is_complete:
            return writer.manifest
        _check_room(plan.folder, writer)
        teacher = load_teacher_of(plan.config, plan.device)
        assert teacher is not None, "D-iGPT has a teacher"
        for part in plan.manifest.parts:
            _write_part(plan, writer, part, teacher, progress)
    return writer.manifest


def _samples(images: Selection) -> dict[str, _Samples]:
    """Return the sample numbers of each part, rising: as the shards are read best."""
    return {TRAIN: images.training_images(), VALIDATION: np.sort(images.validation_indices)}


def _default_folder(config: RunConfig, manifest: TokenManifest) -> Path:
    """Beside the shards, one folder for each combination of settings."""
    identity = json.dumps(manifest.identity(), sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    assert config.data.shards is not None, "the command names them"
    return Path(config.data.shards) / "tokens" / f"{config.teacher.kind}-{manifest.precision}-{digest}"


def _check_room(folder: Path, writer: TokenWriter) -> None:
    manifest = writer.manifest
    needed = sum(manifest.file_bytes(part, file.num_images) for part in manifest.parts for file in writer.missing(part))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(f"{folder} needs {needed / 1e9:,.3g} GB, its disk has {free / 1e9:,.3g} GB free")


def _write_part(
    plan: Tokenization, writer: TokenWriter, part: str, teacher: Teacher, progress: TokenizeProgress | None
) -> None:
    """Write what is missing of a part."""
    files, views = writer.missing(part), plan.manifest.parts[part].views
    batches = _training_views(plan, files) if part == TRAIN else _validation_views(plan, files)
    done, total = 0, sum(file.num_images for file in files) * views

    def encoded(file: TokenFile) -> Iterator[EncodedViews]:
        nonlocal done
        for batch in islice(batches, -(-file.num_images * views // plan.config.micro_batch_size)):
            yield _encode(batch, teacher, plan)
            done += len(batch["images"])
            if progress:
                progress(part, done, total)

    for file in files:
        writer.write(part, file, encoded(file))


def _encode(batch: Batch, teacher: Teacher, plan: Tokenization) -> EncodedViews:
    tokens = teacher(normalize(batch["images"].to(plan.device, non_blocking=True)))
    fields = encode(tokens, plan.manifest.precision)
    error = DirectionError.between(tokens, decode(fields))
    bad_samples = set(batch["indices"][batch["weights"] == 0].tolist())
    return EncodedViews({name: field.cpu() for name, field in fields.items()}, error, bad_samples)


def _training_views(plan: Tokenization, files: list[TokenFile]) -> Iterator[Batch]:
    """Yield the views of the files' images, in order, by one set of workers; no batch reaches over two files."""
    samples, views = plan.images.training_images(), plan.manifest.parts[TRAIN].views
    batch_size = plan.config.micro_batch_size

    def chosen() -> Iterator[tuple[_Samples, _Samples]]:
        for file in files:
            mine = samples[file.first_image : file.first_image + file.num_images]
            repeated, numbers = mine.repeat(views), np.tile(np.arange(views), len(mine))
            seeds = view_seeds(plan.manifest.seed, repeated, numbers)
            for start in range(0, len(repeated), batch_size):
                yield repeated[start : start + batch_size], seeds[start : start + batch_size]

    return chosen_views(plan.images.train_split, chosen(), **training_views(plan.config))


def _validation_views(plan: Tokenization, files: list[TokenFile]) -> Iterator[Batch]:
    """Yield the centered views of the files' images, in order; no batch reaches over two files."""
    samples = np.sort(plan.images.validation_indices)
    for file in files:
        mine = samples[file.first_image : file.first_image + file.num_images]
        yield from evaluation_batches(
            plan.images.validation_split,
            mine,
            batch_size=plan.config.micro_batch_size,
            rank=0,
            world_size=1,
            **evaluation_views(plan.config),
        )
