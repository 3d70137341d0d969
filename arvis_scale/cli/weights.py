"""`arvis-scale weights ...`: weights from elsewhere in, weights for others out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arvis_scale.cli.app import Overrides, console, weights_app


@weights_app.command("fetch")
def weights_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="open_clip:ARCHITECTURE/TAG or timm:ARCHITECTURE.TAG")],
    weights: Annotated[Path, typer.Option(help="folder of fetched weights")] = Path("weights"),
) -> None:
    """Download a teacher's weights, on a machine with a network, for machines without.

    Example: `arvis-scale weights fetch open_clip:ViT-H-14/laion2b_s32b_b79k`
    """
    from arvis_scale.models.fetch import fetch_weights

    fetched = fetch_weights(name, weights)
    place = f"teacher.kind={fetched.kind} teacher.checkpoint={fetched.file.parent}"
    console.print(f"{place} ({fetched.num_bytes:,} bytes, SHA-256 {fetched.sha256})", markup=False)


@weights_app.command("train-vq")
def weights_train_vq(
    shards: Annotated[Path, typer.Argument(metavar="SHARDS", help="folder written by `shards build`")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="folder to write")],
    image_size: Annotated[int, typer.Option(help="side of the image in pixels")] = 224,
    patch_size: Annotated[int, typer.Option(help="side of the patch of one code, in pixels")] = 16,
    num_codes: Annotated[int, typer.Option(help="entries of the codebook")] = 512,
    samples_seen: Annotated[int, typer.Option(help="images to train on, repeats counted")] = 200_000,
) -> None:
    """Train a VQ tokenizer, whose codes D-iGPT can predict.

    Example: `arvis-scale weights train-vq shards/photos weights/vq --image-size 224 --patch-size 16`
    """
    from arvis_scale.engine.weights.train_teachers import train_vq_on_shards
    from arvis_scale.models.teachers.vq_model import VqSize

    size = VqSize(image_size=image_size, patch_size=patch_size, num_codes=num_codes)
    trained = train_vq_on_shards(shards, destination, size=size, samples_seen=samples_seen)
    quality = f"squared error {trained.reconstruction_error:.3f}, {trained.num_codes_used} of {num_codes} codes used"
    console.print(f"{trained.folder}: {quality} in the last batch")


@weights_app.command("train-clip")
def weights_train_clip(
    shards: Annotated[Path, typer.Argument(metavar="SHARDS", help="folder written by `shards build`, with labels")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="folder to write")],
    image_size: Annotated[int, typer.Option(help="side of the image in pixels")] = 32,
    patch_size: Annotated[int, typer.Option(help="side of a patch of the vision tower, in pixels")] = 4,
    width: Annotated[int, typer.Option(help="channels of the vision tower, a multiple of 16")] = 64,
    depth: Annotated[int, typer.Option(help="layers of the vision tower")] = 4,
    samples_seen: Annotated[int, typer.Option(help="images to train on, repeats counted")] = 100_000,
) -> None:
    """Train a small CLIP model on class names, as D-iGPT's teacher for studies without downloads.

    Example: `arvis-scale weights train-clip shards/photos weights/clip --image-size 32 --patch-size 4`
    """
    from arvis_scale.engine.weights.train_teachers import train_clip_on_shards

    trained = train_clip_on_shards(
        shards,
        destination,
        image_size=image_size,
        patch_size=patch_size,
        width=width,
        depth=depth,
        samples_seen=samples_seen,
    )
    console.print(trained.summary(), markup=False)


@weights_app.command("import")
def weights_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="released checkpoint of XTRA or D-iGPT")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="folder to write")],
    objective: Annotated[str, typer.Option(help="xtra or digpt")],
    preset: Annotated[str, typer.Option(help="size of the encoder")],
    image_size: Annotated[int, typer.Option(help="side of the image in pixels; positions are resampled to it")],
    patch_size: Annotated[int, typer.Option(help="side of a patch in pixels")],
    overrides: Overrides = None,
    trust_pickle: Annotated[bool, typer.Option("--trust-pickle", help="let the file run code")] = False,
) -> None:
    """Read a checkpoint that the authors released, for probes, training and export.

    Example: `arvis-scale weights import b16.ckpt runs/b16 --objective xtra --preset B --image-size 256 --patch-size 16`
    """
    from arvis_scale.engine.weights.import_weights import import_checkpoint

    weights = import_checkpoint(
        file,
        destination,
        objective=objective,
        preset=preset,
        image_size=image_size,
        patch_size=patch_size,
        overrides=overrides or [],
        trust_pickle=trust_pickle,
    )
    console.print(f"{sum(value.numel() for value in weights.values()):,} parameters: {destination}", markup=False)


@weights_app.command("export")
def weights_export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a completed run or an import")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="folder to write")],
    kind: Annotated[str, typer.Option("--format", help="timm or safetensors")] = "timm",
) -> None:
    """Write a run's encoder for others, with a model card.

    Example: `arvis-scale weights export runs/first exported/first`
    """
    from arvis_scale.engine.weights.export_weights import export_encoder

    export_encoder(run, destination, kind=kind)
    console.print(f"how to load it: {destination / 'README.md'}", markup=False)
