"""How many images a second does one core bring from shards to a normalized float batch, and what could it at most?

    python benchmarks/loader.py            # a few minutes on one core
    python benchmarks/loader.py --quick    # does it run at all

Four loaders read the same shards, with the same augmentation (random resized crop, 0.3 to 1 of the area, to 224;
flip), until a float batch with ImageNet's statistics is there:

    v1      the plainest webdataset pipeline: Pillow, torchvision.transforms, default collation
    v2      webdataset with torchvision.io and torchvision.transforms.v2
    exact   ours, data.decoding=exact: uint8 from the loader, normalized as a batch
    fast    ours, data.decoding=fast

and two ceilings decode the whole images and do nothing else. All take turns in one process with one thread; time is
the processor time of the process, which other work on the machine hardly touches, and a ratio is the median over turns
of the v1 pipeline's time / that one's. The photographs are parts of scikit-learn's two, `china` and `flower`, mirrored
at their edges, quality 90, 4:2:0. Also printed: how near the fast views are to the exact ones. Writes JSON beside the
table.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
import torchvision
import webdataset
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms as v1
from torchvision.io import decode_jpeg
from torchvision.transforms import InterpolationMode, v2

from arvis_scale.atomic import write_json
from arvis_scale.data.build import build_shards
from arvis_scale.data.loader import training_batches
from arvis_scale.data.order import SampleOrder
from arvis_scale.data.sample_sets import ListedSamples
from arvis_scale.data.shards import ShardSplit, open_shards
from arvis_scale.models.images import normalize
from arvis_scale.models.normalization import IMAGENET_MEAN, IMAGENET_STD

RESULTS = Path(__file__).parent / "results"
IMAGE_SIZE, BATCH_SIZE = 224, 16
CROP_SCALE, CROP_RATIO, FLIP = (0.3, 1.0), (0.75, 1.5), 0.5
LOADERS, CEILINGS = ("v1", "v2", "exact", "fast"), ("Pillow decodes", "simplejpeg decodes")


@dataclass(frozen=True)
class Photographs:
    """One row of the table: images of one kind."""

    name: str
    width: int
    height: int
    # Pixels per pixel of the original, drawn between these.
    zoom: tuple[float, float]
    # A multiple of the batch size.
    num_images: int
    # `shards build --shorter-side`.
    shorter_side: int | None = None

    def build(self, folder: Path) -> Path:
        """Write the images and their shards below `folder`; return the shards' folder."""
        images = folder / "images"
        images.mkdir(parents=True)
        for number in range(self.num_images):
            (images / f"{number:04d}.jpg").write_bytes(self._jpeg(number))
        build_shards(images, folder / "shards", shorter_side=self.shorter_side)
        return folder / "shards"

    def _jpeg(self, number: int) -> bytes:
        generator = np.random.default_rng(number)
        original = load_sample_images().images[number % 2]
        height, width, _ = original.shape
        original = np.pad(original, ((height, height), (width, width), (0, 0)), mode="symmetric")
        zoom = generator.uniform(*self.zoom)
        size = round(self.width / zoom), round(self.height / zoom)
        left = generator.integers(0, original.shape[1] - size[0] + 1)
        top = generator.integers(0, original.shape[0] - size[1] + 1)
        part = Image.fromarray(original[top : top + size[1], left : left + size[0]])
        buffer = BytesIO()
        part.resize((self.width, self.height), Image.Resampling.BICUBIC).save(buffer, format="JPEG", quality=90)
        return buffer.getvalue()


CASES = (
    Photographs("500 x 375", 500, 375, (0.8, 1.4), 192),
    Photographs("500 x 375, shorter side 288", 500, 375, (0.8, 1.4), 192, shorter_side=288),
    Photographs("1600 x 1200", 1600, 1200, (1.0, 1.5), 48),
    Photographs("1600 x 1200, enlarged", 1600, 1200, (2.5, 3.5), 48),
)


def v1_batches(shards: Path) -> Iterator[Tensor]:
    """Yield the batches of the plainest pipeline."""
    transform = v1.Compose(
        [
            v1.RandomResizedCrop(IMAGE_SIZE, CROP_SCALE, CROP_RATIO, InterpolationMode.BICUBIC),
            v1.RandomHorizontalFlip(FLIP),
            v1.ToTensor(),
            v1.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    dataset = webdataset.WebDataset(tar_files(shards), shardshuffle=False, empty_check=False)
    samples = dataset.decode("pil").to_tuple("jpg").map_tuple(transform)
    for [images] in DataLoader(samples, batch_size=BATCH_SIZE):
        yield images


def v2_batches(shards: Path) -> Iterator[Tensor]:
    """Yield the batches of a pipeline of tensors."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(IMAGE_SIZE, CROP_SCALE, CROP_RATIO, InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(FLIP),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )

    def view(data: bytes) -> Tensor:
        return transform(decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)))

    dataset = webdataset.WebDataset(tar_files(shards), shardshuffle=False, empty_check=False)
    for [images] in DataLoader(dataset.to_tuple("jpg").map_tuple(view), batch_size=BATCH_SIZE):
        yield images


def our_batches(split: ShardSplit, decoding: str) -> Iterator[Tensor]:
    """Yield the batches of our loader for one epoch, as uint8."""
    batches = training_batches(
        split,
        SampleOrder(ListedSamples(np.arange(len(split)), split.shard_sizes), seed=0),
        image_size=IMAGE_SIZE,
        crop_scale=CROP_SCALE,
        crop_ratio=CROP_RATIO,
        horizontal_flip=FLIP,
        decoding=decoding,
        global_batch_size=BATCH_SIZE,
        micro_batch_size=BATCH_SIZE,
        rank=0,
        world_size=1,
        num_workers=0,
        num_samples=len(split),
    )
    return (batch["images"] for batch in batches)


def tar_files(shards: Path) -> list[str]:
    """Return the shards of the train split."""
    return [str(path) for path in sorted(shards.glob("train-*.tar"))]


def whole_image(data: bytes) -> None:
    """Decode with Pillow."""
    Image.open(BytesIO(data), formats=("JPEG",)).load()


def contenders(shards: Path) -> dict[str, Callable[[], None]]:
    """Return what is timed: each goes once over all images."""
    split = open_shards(shards).split("train")
    files = [split.read(sample) for sample in range(len(split))]

    def exhaust(batches: Callable[[], Iterator[Tensor]]) -> None:
        for images in batches():
            assert images.dtype == torch.float32 and images.shape == (BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE)

    def decode(decoder: Callable[[bytes], Any]) -> None:
        for data in files:
            decoder(data)

    return {
        "v1": partial(exhaust, partial(v1_batches, shards)),
        "v2": partial(exhaust, partial(v2_batches, shards)),
        "exact": partial(exhaust, lambda: map(normalize, our_batches(split, "exact"))),
        "fast": partial(exhaust, lambda: map(normalize, our_batches(split, "fast"))),
        "Pillow decodes": partial(decode, whole_image),
        "simplejpeg decodes": partial(decode, simplejpeg.decode_jpeg),
    }


def take_turns(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each run in each round, after one round that does not count; who is first alternates."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name in runs if turn % 2 else reversed(runs):
            start = time.process_time()
            runs[name]()
            if turn:
                seconds[name].append(time.process_time() - start)
    return seconds


def decibels(exact: npt.NDArray[np.uint8], fast: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the peak signal-to-noise ratio of each image, B x 3 x H x W -> B; at most 99."""
    squares = ((exact.astype(np.float64) - fast) ** 2).mean(axis=(1, 2, 3))
    return np.minimum(99.0, 10 * np.log10(255**2 / np.maximum(squares, 1e-12)))


def measure(case: Photographs, rounds: int) -> dict[str, Any]:
    """Return one row: images/s, speed against v1, and the quality of the fast views."""
    with TemporaryDirectory() as folder:
        shards = case.build(Path(folder))
        seconds = take_turns(contenders(shards), rounds)
        split = open_shards(shards).split("train")
        views = {name: torch.cat(list(our_batches(split, name))).numpy() for name in ("exact", "fast")}
        file_bytes = sum(len(split.read(sample)) for sample in range(len(split)))
    quality = decibels(views["exact"], views["fast"])
    return {
        "images": case.name,
        "num_images": case.num_images,
        "kilobytes_per_image": file_bytes / case.num_images / 1e3,
        "images_per_second": {name: case.num_images / statistics.median(taken) for name, taken in seconds.items()},
        "speed_ratio_to_v1": {name: median_ratio(seconds["v1"], seconds[name]) for name in LOADERS},
        "fast_psnr_mean": float(quality.mean()),
        "fast_psnr_worst": float(quality.min()),
    }


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Return the median over rounds of the ratio within the round."""
    return statistics.median(above / below for above, below in zip(numerator, denominator, strict=True))


def print_table(rows: list[dict[str, Any]], console: Console) -> None:
    """Print one row per kind of images: images/s, in brackets the speed against v1."""
    table = Table("images", "KB", *LOADERS, *CEILINGS, "fast: PSNR mean / worst")
    for row in rows:
        speed, ratio = row["images_per_second"], row["speed_ratio_to_v1"]
        table.add_row(
            row["images"],
            f"{row['kilobytes_per_image']:.0f}",
            *(f"{speed[name]:.0f} ({ratio[name]:.2f})" for name in LOADERS),
            *(f"{speed[name]:.0f}" for name in CEILINGS),
            f"{row['fast_psnr_mean']:.1f} / {row['fast_psnr_worst']:.1f} dB",
        )
    console.print(table)


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    return {
        "host": platform.node(),
        "device": platform.processor() or "cpu",
        "cpus": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "pillow": Image.__version__,
        "simplejpeg": simplejpeg.__version__,
        "webdataset": webdataset.__version__,
    }


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="turns that count")
    parser.add_argument("--quick", action="store_true", help="one round of the first two rows")
    parser.add_argument("--output", type=Path, help="JSON file; by default benchmarks/results/DATE-HOST-loader.json")
    return parser.parse_args()


def main() -> None:
    """Measure all cases, print the table and write the JSON file."""
    arguments, console = parse_arguments(), Console(width=140)
    torch.set_num_threads(1)
    now = datetime.now(timezone.utc)
    cases, rounds = (CASES[:2], 1) if arguments.quick else (CASES, arguments.rounds)
    rows = []
    for case in cases:
        console.print(f"[dim]{case}")
        rows.append(measure(case, rounds))
    print_table(rows, console)
    path = arguments.output or RESULTS / f"{now:%Y-%m-%d}-{platform.node()}-loader.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"measured": now.isoformat(timespec="seconds"), "machine": machine(), "rounds": rounds}
    write_json(path, {"schema_version": 1, **record, "rows": rows})
    console.print(f"wrote {path}")


if __name__ == "__main__":
    main()
