"""A checkpoint spread over another number of processes, through DeepSpeed's universal checkpoints."""

from __future__ import annotations

import io
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from arvis_scale.engine.parallel.deepspeed_here import DeepSpeedEngine, convert_to_universal


def write_universal(state: Path, universal: Path) -> None:
    """Write DeepSpeed's files in `state` as a universal checkpoint, one file per parameter and moment.

    In this process alone: workers would be forked from one that has threads of gloo and NCCL.
    """
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        convert_to_universal(
            Namespace(
                input_folder=str(state),
                output_folder=str(universal),
                num_extract_workers=1,
                num_merge_workers=1,
                keep_temp_folder=False,
                strict=True,
                inject_missing_state=True,
            )
        )


def load_universal(engine: DeepSpeedEngine, folder: Path, tag: str) -> dict[str, Any]:
    """Load the universal checkpoint `folder/tag` into `engine` and return its client state."""
    optimizer = engine.optimizer.optimizer
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    engine._config.load_universal_checkpoint = True
    path, client_state = engine.load_checkpoint(str(folder), tag=tag)
    engine._config.load_universal_checkpoint = False
    assert path is not None, f"DeepSpeed found nothing in {folder / tag}"
    # Under ZeRO-3 every group comes back with the settings of the first, weight decay among them, ...
    for group, own, learning_rate in zip(
        optimizer.param_groups, settings, engine.lr_scheduler.get_last_lr(), strict=True
    ):
        group.update({**own, "lr": learning_rate})
    # ... and with one step counter, which each of them then advances. Fused AdamW wants it beside the weights.
    for weights, state in optimizer.state.items():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].to(weights.device, copy=True)
    return client_state
