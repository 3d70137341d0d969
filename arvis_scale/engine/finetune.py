"""`arvis-scale finetune`: a completed run's encoder fine-tuned on labelled images, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from arvis_scale.atomic import whole_file, write_json
from arvis_scale.config import RunConfig, load_config
from arvis_scale.data.loader import evaluation_batches, training_batches
from arvis_scale.data.order import SampleOrder
from arvis_scale.data.sample_sets import ListedSamples
from arvis_scale.data.shards import ShardSplit
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.setup import encoder_of, training_views
from arvis_scale.engine.weights.export import load_encoder
from arvis_scale.evaluation.finetune import Batch, Classifier, finetune, predictions
from arvis_scale.evaluation.probe_result import accuracy_of
from arvis_scale.evaluation.probe_run import open_probe_data, training_images
from arvis_scale.models.igpt import PixelEncoder

FINETUNED_NAME = "finetuned.safetensors"


def finetune_run(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Fine-tune a completed run's encoder on `probe_data`, measure it, and return what result.json's `finetune` holds.

    `overrides`: `key=value` changes of `finetune` and `probe_data`. The run's encoder stays as it is; the fine-tuned
    one is written beside it with its classifier. Raises `ValueError` for a run that is not completed, or cannot be
    fine-tuned.
    """
    folder = RunFolder(path)
    config = _config_of(folder, overrides)
    dataset = open_probe_data(config)
    if dataset is None:
        raise ValueError(f"{folder.config} names no probe_data.shards; give probe_data.shards=SHARDS")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, indices = training_images(dataset, config)
    num_steps = -(-config.finetune.epochs * len(indices) // config.finetune.batch_size)
    model = _classifier(config, folder, len(dataset.classes))
    batches = _training_batches(config, train, indices, num_steps)
    finetune(model, batches, config.finetune, num_steps=num_steps, device=device, precision=config.precision)
    test = dataset.split(config.probe_data.test_split)
    predicted, labels = predictions(model, _test_batches(config, test), device)
    with whole_file(path / FINETUNED_NAME) as temporary:
        save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, temporary)
    result = {
        **asdict(accuracy_of(predicted, labels)),
        "num_train": len(indices),
        "num_steps": num_steps,
        "data": {"name": dataset.name, "hash": dataset.content_hash},
        "settings": asdict(config.finetune),
    }
    write_json(folder.result, {**folder.read_result(), "finetune": result})
    return result


def _classifier(config: RunConfig, folder: RunFolder, num_classes: int) -> Classifier:
    encoder = load_encoder(encoder_of(config), folder.encoder)
    drop_path = config.finetune.drop_path
    if isinstance(encoder, PixelEncoder) and drop_path:
        raise ValueError(f"finetune.drop_path={drop_path}: iGPT's encoder has no stochastic depth; set it to 0")
    torch.manual_seed(config.seed)
    return Classifier(encoder, num_classes, drop_path=drop_path)


def _config_of(folder: RunFolder, overrides: Sequence[str]) -> RunConfig:
    if not folder.encoder.is_file() or not folder.result.is_file():
        raise ValueError(
            f"{folder.path} is not a completed run (no {folder.encoder.name} or {folder.result.name}); train it first"
        )
    other = [override for override in overrides if not override.startswith(("finetune.", "probe_data."))]
    if other:
        raise ValueError(f"{other[0]}: fine-tuning changes keys of finetune and probe_data alone")
    return load_config(str(folder.config), [*overrides, f"output={folder.path}"])


def _training_batches(
    config: RunConfig, split: ShardSplit, indices: npt.NDArray[np.int64], num_steps: int
) -> Iterator[Batch]:
    settings = config.finetune
    return training_batches(
        split,
        SampleOrder(ListedSamples(indices, split.shard_sizes), config.seed),
        **{**training_views(config), "crop_scale": (settings.crop_scale_min, 1.0), "on_bad_sample": "raise"},
        global_batch_size=settings.batch_size,
        micro_batch_size=settings.micro_batch_size,
        rank=0,
        world_size=1,
        num_samples=num_steps * settings.batch_size,
        rand_augment=settings.rand_augment,
    )


def _test_batches(config: RunConfig, test: ShardSplit) -> Iterator[Batch]:
    return evaluation_batches(
        test,
        np.arange(len(test)),
        image_size=config.image_size,
        batch_size=config.finetune.micro_batch_size,
        rank=0,
        world_size=1,
        num_workers=config.data.num_workers,
    )
