"""`arvis-scale demo`: the whole road in small, on scikit-learn's scanned digits.

Started again in the same folder it goes on with what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from rich.console import Console

from arvis_scale.data.build import build_shards
from arvis_scale.engine.weights.train_teachers import train_clip_on_shards
from arvis_scale.launch.studies.study import load_study
from arvis_scale.launch.submit import submit
from scaling_studies import commands


def run_demo(output: Path, console: Console, overrides: Sequence[str] = ()) -> None:
    """Build shards, train a small CLIP and a study of 51 runs, fit and report, all in `output`.

    Raises `ValueError` when runs did not complete; what they left is kept and a second call goes on.
    """
    shards, clip = output / "shards", output / "clip"
    if not (shards / "index.json").exists():
        console.print("[bold]1/4[/] shards of scikit-learn's scanned digits")
        console.print(build_shards("digits", shards).summary())
    if not (clip / "open_clip_config.json").exists():
        console.print("[bold]2/4[/] a small CLIP, whose tokens D-iGPT will predict")
        trained = train_clip_on_shards(shards, clip, image_size=32, patch_size=8, width=64, depth=4, samples_seen=8000)
        console.print(trained.summary())
    console.print("[bold]3/4[/] the study: XTRA and AIM, four sizes, five numbers of unique images; one D-iGPT")
    places = [f"data.shards={shards}", f"probe_data.shards={shards}", f"teacher.checkpoint={clip}"]
    study_file = Path(str(resources.files("arvis_scale.slurm.studies"))) / "demo.yaml"
    study = load_study(study_file, output, [*places, *overrides])
    submission = submit(study, ["arvis-scale", *sys.argv[1:]])
    if submission.unfinished:
        raise ValueError(f"{len(submission.unfinished)} runs did not complete: see `arvis-scale sweep status {output}`")
    console.print("[bold]4/4[/] points, laws, figures, report")
    for step in (commands.collect, commands.fit, commands.plot, commands.report):
        step(output)
