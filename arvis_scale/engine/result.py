"""The end of a run: the encoder exported and probed, result.json written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arvis_scale.atomic import write_json
from arvis_scale.config import RunConfig, load_config
from arvis_scale.data.selection import Selection
from arvis_scale.engine.checkpointing.branching import branch_entries
from arvis_scale.engine.distributed import Processes
from arvis_scale.engine.logs.metrics_log import read_metrics
from arvis_scale.engine.parallel.train_engine import TrainEngine
from arvis_scale.engine.run_folder import SCHEMA_VERSION, RunFolder
from arvis_scale.engine.same_run import saved_config
from arvis_scale.engine.setup import encoder_of, params_of
from arvis_scale.engine.weights.export import load_encoder, save_encoder
from arvis_scale.evaluation.probe_run import (
    check_probe_data,
    open_probe_data,
    probe_encoder,
    probe_raw_pixels,
    training_images,
)


def finish_run(
    config: RunConfig,
    folder: RunFolder,
    engine: TrainEngine,
    images: Selection,
    processes: Processes,
    *,
    flops: float,
    teacher_flops: float,
    val_loss: float | None,
    seconds: float,
    device_seconds: float,
    skipped: dict[str, float],
) -> dict[str, Any]:
    """Export and probe the encoder, write the result and return what the probes found; every process must call it.

    `flops`: of one image, `teacher_flops` of them the teacher's.
    """
    weights = engine.encoder_weights()
    if not processes.is_first:
        return {}
    save_encoder(weights, folder.encoder)
    probes = probe_run(config, processes.device)
    samples_seen = config.num_steps * config.global_batch_size
    logged = read_metrics(folder.metrics)
    write_json(
        folder.result,
        {
            **_identity(config),
            "kind": "trained" if samples_seen else "untrained",
            **params_of(config),
            **branch_entries(folder),
            "unique_images": images.unique_images if samples_seen else 0,
            "samples_seen": samples_seen,
            "repetitions": None if images.unique_images is None else samples_seen / images.unique_images,
            "subset": asdict(images.subset) if samples_seen else None,
            "skipped_samples": {reason.removeprefix("skipped_"): int(count) for reason, count in skipped.items()},
            "train_flops": flops * samples_seen,
            "teacher_flops": teacher_flops * samples_seen,
            "train_loss": next((line["loss"] for line in reversed(logged) if "loss" in line), None),
            "val_loss": val_loss,
            "pretrain_data": {"name": images.dataset.name, "hash": images.dataset.content_hash},
            "probes": probes,
            "wall_seconds": seconds,
            "device_seconds": device_seconds,
            "world_size": processes.world_size,
            "micro_batch_size": config.micro_batch_size,
            "strategy": config.parallel.strategy,
        },
    )
    return probes


def probe_run(config: RunConfig, device: torch.device) -> dict[str, Any]:
    """Probe the exported encoder of a run, in fp32 and without its engine."""
    encoder = load_encoder(encoder_of(config), RunFolder(config.output).encoder)
    return probe_encoder(encoder, config, device)


def probe_again(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Probe a completed run once more, put the outcome into its result.json and return it.

    `overrides`: `key=value` changes of `probe_data`. What probes of other kinds found on the same images is kept.
    """
    folder = RunFolder(path)
    if not folder.encoder.is_file() or not folder.result.is_file():
        raise ValueError(
            f"{path} is not a completed run (no {folder.encoder.name} or {folder.result.name}); train it first"
        )
    other = [override for override in overrides if not override.startswith("probe_data.")]
    if other:
        raise ValueError(f"{other[0]}: a probe changes keys of probe_data alone; the run is as it was trained")
    config = load_config(str(folder.config), [*overrides, f"output={path}"])
    check_probe_data(config)
    probes = probe_run(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if not probes:
        raise ValueError(f"{folder.config} names no probe_data.shards; give probe_data.shards=SHARDS")
    before, probed_on = _of_known_images(folder), _probed_on(config)
    is_same = all(before[key] == value for key, value in probed_on.items())
    num_train = probed_on["probe_images"]["train_images"]
    kept = {
        name: result
        for name, result in before["probes"].items()
        if is_same and _num_train(result) == num_train and name.removesuffix("_by_layer") not in probes
    }
    write_json(folder.result, {**before, **probed_on, "probes": {**kept, **probes}})
    return probes


def _of_known_images(folder: RunFolder) -> dict[str, Any]:
    """Return result.json with `probe_images`, which earlier versions did not record: as the run's config has them."""
    result = folder.read_result()
    if "probe_images" in result or not result["probes"]:
        return {"probe_images": None, **result}
    config, num_train = saved_config(folder).probe_data, _num_train(next(iter(result["probes"].values())))
    splits = {"train_split": config.train_split, "test_split": config.test_split}
    return {**result, "probe_images": {**splits, "train_images": num_train}}


def _num_train(result: Any) -> int:
    """Return the number of images that a probe, or the probes of all layers, was fitted on."""
    number: int = (result[0] if isinstance(result, list) else result)["num_train"]
    return number


def write_raw_pixel_reference(config: RunConfig) -> None:
    """Write the result of a reference that has no encoder: the probe on the pixels themselves."""
    write_json(
        RunFolder(config.output).result,
        {
            **_identity(config),
            "kind": "raw_pixels",
            "objective": "raw_pixels",
            "method": None,
            "preset": None,
            "params_encoder": 0,
            "params_total": 0,
            "unique_images": 0,
            "samples_seen": 0,
            "repetitions": 0.0,
            "subset": None,
            "train_flops": 0.0,
            "teacher_flops": 0.0,
            "train_loss": None,
            "val_loss": None,
            "pretrain_data": None,
            "probes": probe_raw_pixels(config),
            "wall_seconds": 0.0,
            "device_seconds": 0.0,
            "world_size": 1,
            "micro_batch_size": None,
            "strategy": None,
        },
    )


def write_imported_result(config: RunConfig, weights: Mapping[str, Tensor], source: Mapping[str, Any]) -> None:
    """Write the result of weights that were trained elsewhere, on images and at a cost that are not known here.

    `weights`: the objective's, by name; `source`: what they were read from.
    """
    sizes = {name: value.numel() for name, value in weights.items()}
    write_json(
        RunFolder(config.output).result,
        {
            **_identity(config),
            "kind": "imported",
            "source": dict(source),
            "params_encoder": sum(size for name, size in sizes.items() if name.startswith("encoder.")),
            "params_total": sum(sizes.values()),
            "unique_images": None,
            "samples_seen": None,
            "repetitions": None,
            "subset": None,
            "train_flops": None,
            "teacher_flops": None,
            "train_loss": None,
            "val_loss": None,
            "pretrain_data": None,
            "probes": {},
            "wall_seconds": None,
            "device_seconds": None,
            "world_size": None,
            "micro_batch_size": None,
            "strategy": None,
        },
    )


def _identity(config: RunConfig) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "objective": config.objective,
        "method": config.method,
        "preset": config.preset,
        "seed": config.seed,
        "initial_weights": config.initial_weights,
        **_probed_on(config),
    }


def _probed_on(config: RunConfig) -> dict[str, Any]:
    """Return what tells the images of a run's probes from others: the set, and what of it is fitted and measured on."""
    dataset = open_probe_data(config)
    if dataset is None:
        return {"probe_data": None, "probe_images": None}
    _, train_images = training_images(dataset, config)
    return {
        "probe_data": {"name": dataset.name, "hash": dataset.content_hash},
        "probe_images": {
            "train_split": config.probe_data.train_split,
            "test_split": config.probe_data.test_split,
            "train_images": len(train_images),
        },
    }
