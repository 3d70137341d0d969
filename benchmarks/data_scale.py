"""What do the index and the order of samples cost as a data set grows, up to 10^6 shards and 10^10 samples?

    python benchmarks/data_scale.py            # two minutes and 5 GB of disk for a while
    python benchmarks/data_scale.py --quick    # does it run at all

Index: one of 10,000 shards x 10,000 samples is written to disk (its shards as sparse files), dropped from the page
cache and opened as training opens it; the clock runs until the first sample is read, then until one at the end of a
later epoch is. Every window of an epoch is then read in part, and the peak of the resident memory followed from tenth
to tenth.

Order: shard sizes alone, no rows. Seconds until the samples of the first batch are known, until those of a batch in the
tenth epoch are, and per batch of a stream; with all samples, and with half of those that are left when 1% is held out.
That each sample comes exactly once in an epoch is counted over all of them up to 10^8; beyond that, that none comes
twice, over 20 stretches of two windows each. Each row is measured in a process of its own.

Writes JSON beside the tables.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from rich.console import Console
from rich.table import Table

from arvis_scale.atomic import write_json
from arvis_scale.data.index import DatasetIndex, ShardEntry, samples_folder
from arvis_scale.data.order import WINDOW_SHARDS, SampleOrder
from arvis_scale.data.sample_sets import SampleSet
from arvis_scale.data.shards import ShardSplit, open_shards
from arvis_scale.data.subsets import all_samples, first_of, hold_out

RESULTS = Path(__file__).parent / "results"
SAMPLES_PER_SHARD = 10_000
BATCH_SIZE = 4096
# Up to so many samples an epoch is counted through.
COUNTED = 10**8
# An image in the simulated shards is a hole of so many bytes, in tar blocks of its own.
IMAGE_BYTES, SAMPLE_BYTES = 100, 2048


def memory(name: str) -> int:
    """Return a figure of this process's memory in bytes: `VmRSS` is resident now, `VmHWM` its peak."""
    [kibibytes] = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kibibytes) * 1024


def in_fresh_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Return `function(*arguments)` as computed by a new Python process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def write_data_set(folder: Path, num_shards: int) -> None:
    """Write the index of a data set, and its shards as files without content."""
    num_samples = num_shards * SAMPLES_PER_SHARD
    columns: dict[str, Any] = {"offset": np.int64, "size": np.int64, "label": np.int32, "key": "S24", "extension": "S4"}
    samples_folder(folder, "train").mkdir(parents=True)
    maps = {
        name: open_memmap(samples_folder(folder, "train") / f"{name}.npy", "w+", np.dtype(kind), (num_samples,))
        for name, kind in columns.items()
    }
    shard_bytes = SAMPLES_PER_SHARD * SAMPLE_BYTES
    for shard in range(num_shards):
        rows = slice(shard * SAMPLES_PER_SHARD, (shard + 1) * SAMPLES_PER_SHARD)
        maps["offset"][rows] = np.arange(SAMPLES_PER_SHARD) * SAMPLE_BYTES + 512
        maps["size"][rows] = IMAGE_BYTES
        maps["label"][rows] = np.arange(SAMPLES_PER_SHARD) % 1000
        maps["key"][rows] = [b"train_%04d_%08d" % (n % 1000, rows.start + n) for n in range(SAMPLES_PER_SHARD)]
        maps["extension"][rows] = b"jpg"
        with (folder / f"train-{shard:06d}.tar").open("wb") as file:
            file.truncate(shard_bytes)
    maps.clear()
    for path in samples_folder(folder, "train").iterdir():
        with path.open("rb") as file:  # out of the page cache, where a run of another day would not find it either
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    names = [f"train-{shard:06d}.tar" for shard in range(num_shards)]
    entries = [ShardEntry(name, SAMPLES_PER_SHARD, shard_bytes, "0" * 64) for name in names]
    classes = [f"class_{number:04d}" for number in range(1000)]
    DatasetIndex("simulated", classes, {"train": entries}, [], {"train": "0" * 64}, {}).write(folder)


def measure_index(folder: Path, reads_per_window: int) -> dict[str, Any]:
    """Return seconds and bytes of opening a data set, reading far positions, and going through an epoch."""
    before, start = memory("VmRSS"), time.perf_counter()
    split = open_shards(folder).split("train")
    opened, opened_bytes = time.perf_counter(), memory("VmRSS") - before
    order = SampleOrder(all_samples(split.shard_sizes, seed=0), seed=0)
    read(split, order.samples(np.arange(1)))
    first = time.perf_counter()
    # As a resume does, with nothing remembered.
    order = SampleOrder(all_samples(split.shard_sizes, seed=0), seed=0)
    read(split, order.samples(np.array([10 * len(split) - 1])))
    sought = time.perf_counter()
    windows = range(0, len(split), WINDOW_SHARDS * SAMPLES_PER_SHARD)
    peaks = []
    for tenth in range(10):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        for position in windows[len(windows) * tenth // 10 : len(windows) * (tenth + 1) // 10]:
            read(split, order.samples(np.arange(position, min(position + reads_per_window, len(split)))))
        peaks.append(memory("VmHWM"))
    return {
        "shards": len(split.shard_sizes),
        "samples": len(split),
        "index_bytes": sum(path.stat().st_size for path in samples_folder(folder, "train").iterdir()),
        "seconds_to_open": opened - start,
        "seconds_to_first_sample": first - start,
        "seconds_to_seek": sought - first,
        "resident_bytes_of_imports": before,
        "resident_bytes_opened": opened_bytes,
        "reads_in_epoch": reads_per_window * len(windows),
        "peak_bytes_in_epoch": peaks,
    }


def read(split: ShardSplit, samples: np.ndarray) -> None:
    """Read samples as the loader does: bytes, key and label."""
    for sample in samples.tolist():
        assert len(split.read(sample)) == IMAGE_BYTES
    split.labels_of(samples)


def measure_order(num_samples: int, subset: str) -> dict[str, Any]:
    """Return seconds, bytes and counts of the order over shards of 10,000 samples."""
    before, start = memory("VmRSS"), time.perf_counter()
    sizes = np.full(num_samples // SAMPLES_PER_SHARD, SAMPLES_PER_SHARD, dtype=np.int64)
    order, chosen = order_of(sizes, subset)
    order.samples(np.arange(BATCH_SIZE))
    first = time.perf_counter()
    resumed, _ = order_of(sizes, subset)
    resumed.samples(np.arange(BATCH_SIZE) + 9 * order.epoch_length + order.epoch_length // 2)
    sought = time.perf_counter()
    batches = min(1000, order.epoch_length // BATCH_SIZE)
    for batch in range(batches):
        resumed.samples(np.arange(BATCH_SIZE) + batch * BATCH_SIZE)
    streamed = time.perf_counter()
    row = {
        "samples": num_samples,
        "shards": len(sizes),
        "subset": subset,
        "seconds_to_first_batch": first - start,
        "seconds_to_seek": sought - first,
        "seconds_per_batch": (streamed - sought) / batches,
        "peak_bytes": memory("VmHWM"),
        "peak_bytes_beyond_imports": memory("VmHWM") - before,
    }
    return {**row, **count(order, chosen, sizes)}


def order_of(sizes: np.ndarray, subset: str) -> tuple[SampleOrder, SampleSet]:
    """Return an order over `all` samples of a split, or over `half` of those that are not held out."""
    chosen = all_samples(sizes, seed=0)
    if subset == "half":
        pool, _ = hold_out(sizes, 0.01, seed=0)
        chosen = first_of(pool, len(pool) // 2, seed=0)
    return SampleOrder(chosen, seed=0), chosen


def count(order: SampleOrder, chosen: SampleSet, sizes: np.ndarray) -> dict[str, Any]:
    """Count samples of epoch 3; raise `ValueError` when one comes twice, or not at all."""
    start, window = 3 * order.epoch_length, WINDOW_SHARDS * SAMPLES_PER_SHARD
    if len(chosen) <= COUNTED:
        seen = np.zeros(int(sizes.sum()), dtype=bool)
        for position in range(0, order.epoch_length, window):
            seen[order.samples(np.arange(start + position, start + min(position + window, order.epoch_length)))] = True
        if seen.sum() != len(chosen):
            raise ValueError(f"{seen.sum():,} of {len(chosen):,} samples came in an epoch")
        return {"samples_counted": len(chosen)}
    counted = 0
    for position in np.linspace(0, order.epoch_length - 2 * window, 20, dtype=np.int64).tolist():
        samples = np.sort(order.samples(np.arange(start + position, start + position + 2 * window)))
        if (samples[1:] == samples[:-1]).any():
            raise ValueError(f"a sample came twice after position {start + position:,}")
        counted += len(samples)
    return {"samples_counted": counted}


def print_tables(index: dict[str, Any], orders: list[dict[str, Any]], console: Console) -> None:
    """Print what was measured."""
    table = Table("index", "value", title=f"{index['shards']:,} shards, {index['samples']:,} samples")
    table.add_row("size on disk", f"{index['index_bytes'] / 1e9:.2f} GB")
    for name in ("open", "first_sample", "seek"):
        table.add_row(f"seconds to {name}".replace("_", " "), f"{index[f'seconds_to_{name}']:.3f}")
    table.add_row("resident for it", f"{index['resident_bytes_opened'] / 1e6:.1f} MB")
    table.add_row("resident before it", f"{index['resident_bytes_of_imports'] / 1e6:.1f} MB")
    peaks = [f"{value / 1e6:.0f}" for value in index["peak_bytes_in_epoch"]]
    table.add_row(f"peaks over an epoch, {index['reads_in_epoch']:,} reads", f"{' '.join(peaks)} MB")
    console.print(table)
    columns = ("samples", "shards", "of them", "first batch, s", "seek, s", "per batch, ms", "peak MB", "counted")
    table = Table(*columns, title=f"order, batches of {BATCH_SIZE}, windows of {WINDOW_SHARDS} shards")
    for row in orders:
        table.add_row(
            f"{row['samples']:.0e}",
            f"{row['shards']:,}",
            row["subset"],
            f"{row['seconds_to_first_batch']:.3f}",
            f"{row['seconds_to_seek']:.3f}",
            f"{row['seconds_per_batch'] * 1e3:.2f}",
            f"{row['peak_bytes'] / 1e6:.0f}",
            f"{row['samples_counted']:,}",
        )
    console.print(table)


def main() -> None:
    """Measure, print the tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 shards, and an order of up to 10^7 samples")
    parser.add_argument(
        "--output", type=Path, help="JSON file; by default benchmarks/results/DATE-HOST-data_scale.json"
    )
    arguments, console = parser.parse_args(), Console(width=120)
    now = datetime.now(timezone.utc)
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder) / "shards"
        write_data_set(shards, 100 if arguments.quick else 10_000)
        index = in_fresh_process(measure_index, shards, 10_000)
    sizes = [10**exponent for exponent in range(6, 8 if arguments.quick else 11)]
    orders = [in_fresh_process(measure_order, size, subset) for subset in ("all", "half") for size in sizes]
    print_tables(index, orders, console)
    path = arguments.output or RESULTS / f"{now:%Y-%m-%d}-{platform.node()}-data_scale.json"
    machine = {"host": platform.node(), "cpus": os.cpu_count(), "load_average": os.getloadavg()[0]}
    record = {"measured": now.isoformat(timespec="seconds"), "machine": machine, "numpy": np.__version__}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema_version": 1, **record, "index": index, "orders": orders})
    console.print(f"wrote {path}")


if __name__ == "__main__":
    main()
