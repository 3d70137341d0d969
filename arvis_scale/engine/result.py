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
from arvis_scale.engine.setup import encoder_of, params_of
from arvis_scale.engine.weights.export import load_encoder, save_encoder
from arvis_scale.evaluation.probe_run import open_probe_data, probe_encoder, probe_raw_pixels


def finish_run(
    config: RunConfig,
    folder: RunFolder,
    engine: TrainEngine,
    images: Selection,
    processes: Processes,
    *,
    flops: float,
    val_loss: float | None,
    seconds: float,
    skipped: dict[str, float],
) -> dict[str, Any]:
    """Export and probe the encoder, write the result and return what the probes found; every process must call it."""
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
            "train_loss": next((line["loss"] for line in reversed(logged) if "loss" in line), None),
            "val_loss": val_loss,
            "pretrain_data": {"name": images.dataset.name, "hash": images.dataset.content_hash},
            "probes": probes,
            "wall_seconds": seconds,
            "device_seconds": seconds * processes.world_size,
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
    probes = probe_run(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if not probes:
        raise ValueError(f"{folder.config} names no probe_data.shards; give probe_data.shards=SHARDS")
    before, probe_data = folder.read_result(), _identity(config)["probe_data"]
    same_images = before["probe_data"] == probe_data
    kept = {
        name: result
        for name, result in before["probes"].items()
        if same_images and name.removesuffix("_by_layer") not in probes
    }
    write_json(folder.result, {**before, "probe_data": probe_data, "probes": {**kept, **probes}})
    return probes


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
    probe_data = open_probe_data(config)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "objective": config.objective,
        "method": config.method,
        "preset": config.preset,
        "seed": config.seed,
        "initial_weights": config.initial_weights,
        "probe_data": {"name": probe_data.name, "hash": probe_data.content_hash} if probe_data else None,
    }
