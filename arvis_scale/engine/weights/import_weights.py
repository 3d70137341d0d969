"""`weights import`: a released checkpoint as a folder that training, probes and export read.

DST/encoder.safetensors    the encoder alone, as in a run folder
DST/objective.safetensors  the whole objective, for `initial_weights=DST`
DST/config.yaml            as in a run folder
DST/result.json            likewise, with file, size and SHA-256 that the weights came from
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arvis_scale.config import RunConfig, build_config, parse_override, save_config, suggestion
from arvis_scale.engine.result import write_imported_result
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.weights.export import save_encoder
from arvis_scale.engine.weights.initial_weights import save_objective
from arvis_scale.engine.weights.new_folder import check_free, new_folder
from arvis_scale.hashing import sha256_of
from arvis_scale.models.build import build_objective
from arvis_scale.models.released import weights_of
from arvis_scale.models.weight_files import read_weights

# Objectives whose authors released checkpoints.
RELEASED = ("xtra", "digpt")
# What the released models saw is not known here, and the teacher of D-iGPT is where `weights fetch` would put it.
_UNKNOWN = {
    "data.shards": "not known",
    "samples_seen": 0,
    "teacher.checkpoint": "weights/open_clip-ViT-H-14-laion2b_s32b_b79k",
}


def import_checkpoint(
    file: Path,
    destination: Path,
    *,
    objective: str,
    preset: str,
    image_size: int,
    patch_size: int,
    overrides: Sequence[str] = (),
    trust_pickle: bool = False,
) -> dict[str, Tensor]:
    """Write the released checkpoint `file` of `objective` (xtra | digpt) to the new folder `destination`.

    `overrides`: key=value of the run's configuration, such as `xtra.block_side=2` or `probe_data.shards=...`.
    Positions are resampled where `image_size` is not the checkpoint's. `trust_pickle` lets the file run code. Returns
    the objective's weights by name. Raises `ValueError`, before anything is written, for what does not fit.
    """
    if objective not in RELEASED:
        hint = suggestion(objective, RELEASED)
        raise ValueError(f"there are no released checkpoints of {objective!r}{hint}; one of {', '.join(RELEASED)}")
    check_free(destination, "import")
    values = {
        **_UNKNOWN,
        "name": destination.name,
        "output": str(destination),
        "objective": objective,
        "preset": preset,
        "image_size": image_size,
        "patch_size": patch_size,
    }
    config = build_config(values, dict(map(parse_override, overrides)), "weights import")
    weights = _read(file, config, trust_pickle)
    with new_folder(destination) as folder:
        _write(weights, config, file, RunFolder(folder))
    return weights


def _read(file: Path, config: RunConfig, trust_pickle: bool) -> dict[str, Tensor]:
    state = read_weights(file, trust_pickle=trust_pickle)
    with torch.device("meta"):
        model = build_objective(
            config.objective,
            preset=config.preset,
            image_size=config.image_size,
            patch_size=config.patch_size,
            options=asdict(getattr(config, config.objective)),
            **_teacher_shape(config, state),
        )
    return weights_of(model, config.objective, state, source=str(file))


def _teacher_shape(config: RunConfig, state: dict[str, Tensor]) -> dict[str, Any]:
    """Return D-iGPT's teacher as the checkpoint has it; the teacher's grid is in no weight, so any will do."""
    if config.objective != "digpt":
        return {}
    heads = [state[name] for name in ("ar_pred.bias", "kd_pred.bias") if name in state]
    return {
        "teacher_width": len(heads[0]) if heads else 1,
        "teacher_grid": config.image_size // config.patch_size,
    }


def _write(weights: dict[str, Tensor], config: RunConfig, file: Path, folder: RunFolder) -> None:
    prefix = "encoder."
    encoder = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    save_encoder(encoder, folder.encoder)
    save_objective(weights, folder.path)
    source = {"file": file.name, "num_bytes": file.stat().st_size, "sha256": sha256_of(file)}
    save_config(config, folder.config)
    write_imported_result(replace(config, output=str(folder.path)), weights, source)
