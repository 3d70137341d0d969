"""`arvis-scale demo`: the whole road in small, on scikit-learn's scanned digits.

Started again in the same folder it goes on with what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from rich.console import Console

from arvis_scale.data.build import build_shards
from arvis_scale.data.shards import open_shards
from arvis_scale.launch.studies.study import load_study
from arvis_scale.launch.submit import submit
from scaling_studies import commands

IMAGE_SIZE = 32
PATCH_SIZE = 8


def run_demo(output: Path, console: Console, overrides: Sequence[str] = ()) -> None:
    """Build shards, train a small CLIP and a study of 43 runs, fit and report, all in `output`.

    Raises `ValueError` when runs did not complete; what they left is kept and a second call goes on.
    """
    shards, clip = output / "shards", output / "clip"
    if not (shards / "index.json").exists():
        console.print("[bold]1/4[/] shards of scikit-learn's scanned digits")
        console.print(build_shards("digits", shards).summary())
    if not (clip / "open_clip_config.json").exists():
        console.print("[bold]2/4[/] a small CLIP, whose tokens D-iGPT will predict")
        console.print(_train_clip(shards, clip))
    console.print("[bold]3/4[/] the study: XTRA and AIM, four sizes, four numbers of unique images; one D-iGPT")
    places = [f"data.shards={shards}", f"probe_data.shards={shards}", f"teacher.checkpoint={clip}"]
    study_file = Path(str(resources.files("arvis_scale.slurm.studies"))) / "demo.yaml"
    study = load_study(study_file, output, [*places, *overrides])
    submission = submit(study, ["arvis-scale", *sys.argv[1:]])
    if submission.unfinished:
        raise ValueError(f"{len(submission.unfinished)} runs did not complete: see `arvis-scale sweep status {output}`")
    console.print("[bold]4/4[/] points, laws, figures, report")
    for step in (commands.collect, commands.fit, commands.plot, commands.report):
        step(output)


def _train_clip(shards: Path, destination: Path) -> str:
    """Train the teacher on the labelled train split; one line says how well it tells the classes apart."""
    from arvis_scale.data.loader import evaluation_batches
    from arvis_scale.models.small_clip import train_small_clip

    dataset = open_shards(shards)
    train = dataset.split("train")
    batches = evaluation_batches(
        train, np.arange(len(train)), image_size=IMAGE_SIZE, batch_size=250, rank=0, world_size=1, num_workers=0
    )
    clip = train_small_clip(
        ((batch["images"], batch["labels"]) for batch in batches),
        dataset.classes,
        destination,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
    )
    return (
        f"{clip.folder}: zero-shot accuracy {clip.zero_shot_accuracy:.3f} on its training images "
        f"(chance {clip.chance:.3f})"
    )
