"""`weights export`: a run's encoder for others, as timm or plain safetensors, with a model card.

DST/model.safetensors (timm) or encoder.safetensors (safetensors, our names)
DST/config.json       the model for timm.create_model, or config.yaml, the run's
DST/attention_mask.safetensors   where a mask stays on at transfer, for timm, which keeps none of its own
DST/README.md         the model card
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file

from arvis_scale.atomic import write_json, write_text
from arvis_scale.config import RunConfig, load_config, save_config, suggestion
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.setup import encoder_of
from arvis_scale.engine.weights.export import load_encoder, save_encoder
from arvis_scale.engine.weights.model_card import model_card
from arvis_scale.engine.weights.new_folder import check_free, new_folder
from arvis_scale.models.encoder import Backbone
from arvis_scale.models.timm_export import check_exportable, check_reproduced, timm_config, timm_state, transfer_mask

MASK_NAME = "attention_mask"


def load_run_encoder(path: Path | str) -> Backbone:
    """Return the encoder of a completed run, an import, or an export as safetensors, fp32, in evaluation mode."""
    folder = RunFolder(path)
    for needed in (folder.config, folder.encoder):
        if not needed.is_file():
            raise ValueError(f"{path} has no {needed.name}; name a completed run or a folder of `weights import`")
    return load_encoder(encoder_of(_config_of(folder)), folder.encoder).eval()


def export_encoder(run: Path, destination: Path, *, kind: str = "timm") -> None:
    """Write the encoder of the run `run`, or of an imported checkpoint, to the new folder `destination`.

    `kind`: timm | safetensors. A timm export is loaded by timm and compared with the encoder before it is kept.
    Raises `ValueError` when timm cannot express the encoder, and when the destination holds something.
    """
    if kind not in _WRITERS:
        raise ValueError(f"--format {kind!r} is not known{suggestion(kind, list(_WRITERS))}; one of timm, safetensors")
    check_free(destination, "export")
    folder = RunFolder(run)
    encoder, config = load_run_encoder(run), _config_of(folder)
    result = folder.read_result() if folder.result.is_file() else None
    with new_folder(destination) as temporary:
        _WRITERS[kind](encoder, config, temporary)
        write_text(temporary / "README.md", model_card(encoder, config, result, kind=kind))


def _config_of(folder: RunFolder) -> RunConfig:
    # The folder may have been moved since it was written.
    return load_config(str(folder.config), [f"output={folder.path}"])


def _write_timm(encoder: Backbone, config: RunConfig, folder: Path) -> None:
    import timm

    exportable = check_exportable(encoder)
    save_encoder(timm_state(exportable), folder / "model.safetensors")
    write_json(folder / "config.json", timm_config(exportable))
    mask = transfer_mask(exportable)
    if mask is not None:
        save_file({MASK_NAME: mask.contiguous()}, folder / f"{MASK_NAME}.safetensors")
    check_reproduced(exportable, timm.create_model(f"local-dir:{folder}", pretrained=True))


def _write_safetensors(encoder: Backbone, config: RunConfig, folder: Path) -> None:
    save_encoder(encoder.state_dict(), RunFolder(folder).encoder)
    save_config(config, RunFolder(folder).config)
    palette = RunFolder(config.output).palette
    if palette.is_file():
        shutil.copyfile(palette, RunFolder(folder).palette)


_WRITERS: dict[str, Callable[[Backbone, RunConfig, Path], None]] = {
    "timm": _write_timm,
    "safetensors": _write_safetensors,
}
