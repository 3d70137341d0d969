"""What do stored teacher tokens save, and how fast are they read?

    python benchmarks/teacher_tokens.py            # about five minutes on one core
    python benchmarks/teacher_tokens.py --quick    # does it run at all

Steps: D-iGPT with the teacher in the loop, from tokens in fp16 and from tokens in int8 take turns, a step each, in one
process with one thread; a step is loading, teacher or tokens, forward and backward pass, AdamW. Photographs are parts
of scikit-learn's two. The teacher has random weights, which cost what trained ones do. Time is the processor time of
the process, which other work on the machine moves least; ratios are medians over turns.

Reading: views of an H/14 teacher, 257 x 1024, in random order from two files, from the page cache and, asking the
system to forget the files first, from the disk; wall clock, one thread. Writes JSON beside the table.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import timm
import torch
from objective_step import machine, median_ratio
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images

from arvis_scale.atomic import write_json
from arvis_scale.config import RunConfig, build_config
from arvis_scale.data.build import build_shards
from arvis_scale.data.selection import select_images
from arvis_scale.data.teacher_tokens import TeacherTokens
from arvis_scale.data.token_manifest import TRAIN, TokenManifest, TokenPart
from arvis_scale.data.token_records import DirectionError, encode, record_type
from arvis_scale.data.token_writing import EncodedViews, open_writer
from arvis_scale.engine.setup import Preparation, load_teacher_of, objective_of, teacher_shape_of, train_batches
from arvis_scale.engine.tokenize import plan_tokenization, tokenize

RESULTS = Path(__file__).parent / "results"
WARMUP_ROUNDS = 2
NUM_TOKENS, WIDTH = 257, 1024  # of OpenCLIP's H/14
BATCH_SIZE = 64  # of the reading
CPU = torch.device("cpu")


def write_photographs(folder: Path, num_images: int) -> None:
    """Write JPEG photographs of 500 x 375 pixels."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    photographs = load_sample_images().images  # 427 x 640
    for number in range(num_images):
        top, left = generator.integers(0, 427 - 375), generator.integers(0, 640 - 500)
        data = BytesIO()
        Image.fromarray(photographs[number % 2][top : top + 375, left : left + 500]).save(data, "JPEG", quality=90)
        (folder / f"{number:04d}.jpg").write_bytes(data.getvalue())


def config_of(shards: Path, weights: Path, arguments: argparse.Namespace, **changes: Any) -> RunConfig:
    """Return the run: 224 pixels, patch 16."""
    steps = WARMUP_ROUNDS + arguments.rounds
    values = {
        "name": "teacher_tokens",
        "output": "-",
        "data.shards": str(shards),
        "objective": "digpt",
        "preset": arguments.preset,
        "image_size": 224,
        "digpt.segment_side": 7,
        "samples_seen": steps * arguments.batch_size,
        "global_batch_size": arguments.batch_size,
        "micro_batch_size": arguments.batch_size,
        "teacher.kind": "timm",
        "teacher.architecture": arguments.teacher,
        "teacher.checkpoint": str(weights),
        **changes,
    }
    return build_config({}, values, "teacher_tokens")


def step_of(config: RunConfig) -> Callable[[], float]:
    """Return a training step of the run, which returns its loss."""
    batches = train_batches(config, select_images(config.data, None), rank=0, start_step=0)
    prepare = Preparation(CPU, load_teacher_of(config, CPU))
    model = objective_of(config, teacher_shape_of(config))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> float:
        loss, _ = model(prepare(next(batches)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def measure_steps(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row for each source of tokens."""
    weights = folder / "teacher.safetensors"
    save_file(timm.create_model(arguments.teacher).state_dict(), weights)
    write_photographs(folder / "photographs", 64)
    build_shards(folder / "photographs", folder / "shards")
    config = config_of(folder / "shards", weights, arguments)
    steps, rows = {"teacher": step_of(config)}, {}
    for precision in ("fp16", "int8"):
        plan = plan_tokenization(config, views=2, precision=precision, folder=folder / precision)
        start = time.process_time()
        error = tokenize(plan).error
        rows[precision] = {"tokenize_seconds": time.process_time() - start, "error": error.mean}
        stored = config_of(folder / "shards", weights, arguments, **{"teacher.tokens": str(plan.folder)})
        steps[precision] = step_of(stored)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARMUP_ROUNDS + arguments.rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if turn >= WARMUP_ROUNDS:
                seconds[name].append(time.process_time() - start)
    return [
        {
            "tokens": name,
            "steps_per_second": 1 / statistics.median(taken),
            "speedup": median_ratio(seconds["teacher"], taken),
            **rows.get(name, {}),
        }
        for name, taken in seconds.items()
    ]


def measure_reading(folder: Path, precision: str, num_images: int) -> dict[str, Any]:
    """Return how many views a second are read."""
    samples = np.arange(num_images)
    manifest = TokenManifest(
        made_with={},
        seed=0,
        precision=precision,
        num_tokens=NUM_TOKENS,
        width=WIDTH,
        images_per_file=num_images // 2,
        parts={TRAIN: TokenPart.of(samples, 1)},
    )
    fields = encode(torch.randn(num_images // 2, NUM_TOKENS, WIDTH), precision)
    with open_writer(folder, manifest, {TRAIN: samples}) as writer:
        for file in writer.missing(TRAIN):
            writer.write(TRAIN, file, [EncodedViews(fields, DirectionError(), set())])
    order = np.random.default_rng(0).permutation(num_images)
    row: dict[str, Any] = {"precision": precision, "view_bytes": record_type(precision, NUM_TOKENS, WIDTH).itemsize}
    for source in ("disk", "cache"):
        if source == "disk":
            forget(folder)
        tokens = TeacherTokens(folder, writer.manifest, TRAIN, num_retries=0)
        start = time.perf_counter()
        for first in range(0, num_images, BATCH_SIZE):
            batch = order[first : first + BATCH_SIZE]
            tokens.read(batch, np.zeros_like(batch))
        row[f"views_per_second_{source}"] = num_images / (time.perf_counter() - start)
    return row


def forget(folder: Path) -> None:
    """Ask the system to drop the files from its page cache."""
    os.sync()
    for path in folder.glob("*.npy"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def print_tables(steps: list[dict[str, Any]], reading: list[dict[str, Any]], console: Console) -> None:
    """Print steps and reading."""
    table = Table("tokens", "steps/s", "against the teacher", "direction error", "tokenize, s")
    for row in steps:
        error = f"{row['error']:.2g}" if "error" in row else ""
        made = f"{row['tokenize_seconds']:.1f}" if "error" in row else ""
        table.add_row(row["tokens"], f"{row['steps_per_second']:.3f}", f"{row['speedup']:.2f}x", error, made)
    console.print(table)
    table = Table("H/14", "bytes of a view", "views/s from the cache", "from the disk")
    for row in reading:
        speeds = (f"{row[f'views_per_second_{source}']:,.0f}" for source in ("cache", "disk"))
        table.add_row(row["precision"], f"{row['view_bytes']:,}", *speeds)
    console.print(table)


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mini", help="size of the student")
    parser.add_argument("--teacher", default="vit_base_patch16_224", help="timm architecture")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9, help="turns that count")
    parser.add_argument("--views", type=int, default=1024, help="views that are read")
    parser.add_argument("--quick", action="store_true", help="small, one round")
    parser.add_argument("--output", type=Path, help="JSON file [default: results/DATE-HOST-teacher_tokens.json]")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.preset, arguments.teacher, arguments.rounds, arguments.views = "nano", "test_vit", 1, 64
    return arguments


def main() -> None:
    """Measure, print and write."""
    arguments = parse_arguments()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        steps = measure_steps(Path(folder), arguments)
        reading = [
            measure_reading(Path(folder) / f"reading-{precision}", precision, arguments.views)
            for precision in ("fp16", "int8")
        ]
    print_tables(steps, reading, Console())
    name = f"{datetime.now(timezone.utc):%Y-%m-%d}-{platform.node()}-teacher_tokens.json"
    output = arguments.output or RESULTS / name
    settings = {key: str(value) for key, value in vars(arguments).items() if key != "output"}
    write_json(
        output, {"schema_version": 1, "machine": machine(), "settings": settings, "steps": steps, "reading": reading}
    )
    print(f"written: {output}")


if __name__ == "__main__":
    main()
