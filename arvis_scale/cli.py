"""`arvis-scale`: one sub-command per verb, each a thin call into the package that does the work.

A `ValueError` is the user's to mend: it ends as one line and status 2, without a traceback.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

TRAINING_PACKAGES = (
    "torch",
    "torchvision",
    "deepspeed",
    "webdataset",
    "open_clip",
    "timm",
    "tensorboard",
    "submitit",
    "safetensors",
    "huggingface_hub",
)

app = typer.Typer(
    help="From a folder of images to efficiency curves of autoregressive image pretraining.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
shards_app = typer.Typer(help="Image folders to WebDataset shards.", no_args_is_help=True)
sweep_app = typer.Typer(help="Grids of runs.", no_args_is_help=True)
study_app = typer.Typer(help="Runs to points, laws, figures and a report.", no_args_is_help=True)
weights_app = typer.Typer(help="Weights from elsewhere in, weights for others out.", no_args_is_help=True)
app.add_typer(shards_app, name="shards")
app.add_typer(sweep_app, name="sweep")
app.add_typer(study_app, name="study")
app.add_typer(weights_app, name="weights")

console = Console(soft_wrap=True, highlight=False)
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value changes of the configuration", show_default=False)
]
StudyFolder = Annotated[Path, typer.Argument(metavar="DIR", help="study folder", show_default=False)]


def main() -> None:
    """Run the command line."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("arvis_scale").setLevel(logging.INFO)
    try:
        app()
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in TRAINING_PACKAGES:
            raise
        _fail(
            f"this command needs {package}; install it with: pip install 'arvis-scale[train]' (in a clone: '.[train]')"
        )
    except (ValueError, OSError) as error:
        _fail(str(error))


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield a function that shows (stage, images done, their total where it is known)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def advance(stage: str, done: int, total: int | None) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total)
            progress.update(bars[stage], completed=done)

        yield advance


def _fail(message: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(message)}")
    sys.exit(2)


@shards_app.command("build")
def shards_build(
    source: Annotated[str, typer.Argument(metavar="SRC", help="image folder, archive of one, or `digits`")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="folder to write")],
) -> None:
    """Write WebDataset shards with an index from images.

    Example: `arvis-scale shards build photos/ shards/photos`
    """
    from arvis_scale.data.build import build_shards

    with _progress() as advance:
        report = build_shards(source, destination, progress=advance)
    console.print(report.summary(), markup=False)


@shards_app.command("check")
def shards_check(destination: Annotated[Path, typer.Argument(metavar="DST", help="folder written by build")]) -> None:
    """Verify every shard and every sample, and name what is broken.

    Example: `arvis-scale shards check shards/photos`
    """
    from arvis_scale.data.check import check_shards

    with _progress() as advance:
        report = check_shards(destination, progress=partial(advance, "checking"))
    console.print(report.summary(), markup=False)
    if report.problems:
        raise typer.Exit(1)


@app.command()
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a recipe")],
    overrides: Overrides = None,
) -> None:
    """Train one run; started again, it goes on from its last checkpoint.

    Example: `arvis-scale train digits objective=xtra name=first output=runs/first data.shards=shards/digits`
    """
    from arvis_scale.config import load_config
    from arvis_scale.engine.launcher import is_first_process, train_here
    from arvis_scale.engine.run_folder import RunFolder

    run = load_config(config, overrides or [])
    status = train_here(run, ["train", config, *(overrides or [])])
    lines = [f"{status.state} at step {status.step} of {status.num_steps}: {run.output}"]
    if status.state != "completed":
        lines.append(status.reason)
    elif probes := RunFolder(run.output).read_result()["probes"]:
        lines.append(_probe_line(probes["linear"]))
    if is_first_process():
        console.print("\n".join(lines), markup=False)
    if status.state != "completed":
        raise typer.Exit(1)


@app.command()
def probe(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a completed run")],
    overrides: Overrides = None,
    kind: Annotated[str, typer.Option(help="kind of probe: linear")] = "linear",
) -> None:
    """Measure a run's encoder on labelled images again.

    Example: `arvis-scale probe runs/first probe_data.shards=shards/digits`
    """
    if kind != "linear":
        raise ValueError(f"--kind {kind!r} is not known; one of linear")
    from arvis_scale.engine.result import probe_again

    console.print(_probe_line(probe_again(run, overrides or [])["linear"]), markup=False)


def _probe_line(result: dict[str, Any]) -> str:
    return (
        f"linear probe: accuracy {result['accuracy']:.4f} (95% interval {result['accuracy_low']:.4f} to "
        f"{result['accuracy_high']:.4f}) on {result['num_test']:,} images"
    )


@sweep_app.command("submit")
def sweep_submit(
    study_file: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="study file")],
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(help="study folder [default: runs/NAME]", show_default=False)] = None,
) -> None:
    """Start the runs of a study that are missing or failed.

    Example: `arvis-scale sweep submit my_study.yaml data.shards=shards/photos`
    """
    from arvis_scale.launch.study import load_study
    from arvis_scale.launch.submit import submit

    study = load_study(study_file, output, overrides or [])
    unfinished = submit(study, ["arvis-scale", *sys.argv[1:]])
    console.print(f"{len(study.runs) - len(unfinished)} of {len(study.runs)} runs completed: {study.output}")
    if unfinished:
        sweep_status(study.output)
        raise typer.Exit(1)


@sweep_app.command("status")
def sweep_status(folder: StudyFolder) -> None:
    """Show the state of every run of a study.

    Example: `arvis-scale sweep status runs/demo`
    """
    from arvis_scale.launch.status import study_states

    runs = study_states(folder)
    table = Table(Column("run", no_wrap=True), "state", "step", "attempts", "linear probe")
    for run in runs:
        accuracy = "" if run.accuracy is None else f"{run.accuracy:.4f}"
        steps = f"{run.status.step}/{run.status.num_steps}" if run.status.num_steps else ""
        table.add_row(run.name, run.status.state, steps, str(run.status.attempt), accuracy)
    console.print(table)
    for run in runs:
        if run.status.reason:
            console.print(f"{run.name}: {run.status.reason}", markup=False)


@study_app.command("collect")
def study_collect(folder: StudyFolder) -> None:
    """Gather the runs' results into DIR/points.csv.

    Example: `arvis-scale study collect runs/demo`
    """
    from scaling_studies import commands

    console.print(commands.collect(folder))


@study_app.command("fit")
def study_fit(folder: StudyFolder) -> None:
    """Fit laws to DIR/points.csv and write DIR/fits.json.

    Example: `arvis-scale study fit runs/demo`
    """
    from scaling_studies import commands

    console.print(commands.fit(folder))


@study_app.command("plot")
def study_plot(folder: StudyFolder) -> None:
    """Draw points and laws into DIR/figures.

    Example: `arvis-scale study plot runs/demo`
    """
    from scaling_studies import commands

    for path in commands.plot(folder):
        console.print(path)


@study_app.command("report")
def study_report(folder: StudyFolder) -> None:
    """Write DIR/report.html, one self-contained page.

    Example: `arvis-scale study report runs/demo`
    """
    from scaling_studies import commands

    console.print(commands.report(folder))


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
    from arvis_scale.engine.train_tokenizer import train_vq_on_shards
    from arvis_scale.models.teachers.vq_model import VqSize

    size = VqSize(image_size=image_size, patch_size=patch_size, num_codes=num_codes)
    trained = train_vq_on_shards(shards, destination, size=size, samples_seen=samples_seen)
    quality = f"squared error {trained.reconstruction_error:.3f}, {trained.num_codes_used} of {num_codes} codes used"
    console.print(f"{trained.folder}: {quality} in the last batch")


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
    from arvis_scale.engine.import_weights import import_checkpoint

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
    from arvis_scale.engine.export_weights import export_encoder

    export_encoder(run, destination, kind=kind)
    console.print(f"how to load it: {destination / 'README.md'}", markup=False)


@app.command()
def demo(
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option(help="folder to work in")] = Path("runs/demo"),
) -> None:
    """Do everything, small, on built-in real images: shards, models, curves, report.

    Example: `arvis-scale demo`
    """
    from arvis_scale.demo import run_demo

    run_demo(output, console, overrides or [])
    sweep_status(output)
    console.print(f"report:      {output / 'report.html'}")
    console.print(f"TensorBoard: tensorboard --logdir {output / 'runs'}")
