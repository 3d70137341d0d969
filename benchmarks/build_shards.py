"""How many images a second does `shards build` take, and what does a second worker give?

    python benchmarks/build_shards.py            # some minutes
    python benchmarks/build_shards.py --quick    # does it run at all

Photographs of the loader's benchmark, as a folder of JPEGs, become shards: as they are (every image is decoded once,
its bytes are copied), and encoded anew to a shorter side of 288. Wall time, since workers are about nothing else: the
numbers of workers take turns, and a ratio is the median over turns of the time of one / that of several. Other work on
the machine shows in them; the load is printed and recorded. Writes JSON beside the table.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loader import CASES, RESULTS, Photographs
from rich.console import Console
from rich.table import Table

from arvis_scale.atomic import write_json
from arvis_scale.data.build import build_shards

WORKERS = (1, 2)
SHORTER_SIDE = 288


def measure(case: Photographs, shorter_side: int | None, rounds: int) -> dict[str, Any]:
    """Return images/s of each number of workers, and the ratios, for `case`."""
    seconds: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        case.build(folder)  # writes the images, and warms up
        for number in range(rounds):
            for workers in WORKERS:
                started = time.perf_counter()
                build_shards(
                    folder / "images", folder / f"{number}-{workers}", shorter_side=shorter_side, num_workers=workers
                )
                seconds[workers].append(time.perf_counter() - started)
    return {
        "images": case.name,
        "shorter_side": shorter_side,
        "num_images": case.num_images,
        "images_per_second": {
            workers: case.num_images / statistics.median(taken) for workers, taken in seconds.items()
        },
        "speed_ratio": {
            workers: statistics.median(one / several for one, several in zip(seconds[1], taken, strict=True))
            for workers, taken in seconds.items()
        },
    }


def main() -> None:
    """Measure all cases, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns that count")
    parser.add_argument("--quick", action="store_true", help="one turn of few images")
    parser.add_argument(
        "--output", type=Path, help="JSON file; by default benchmarks/results/DATE-HOST-build_shards.json"
    )
    arguments, console = parser.parse_args(), Console(width=140)
    now, load_before = datetime.now(timezone.utc), os.getloadavg()[0]
    small, large = (case for case in CASES if case.shorter_side is None and "enlarged" not in case.name)
    counts = {small: 32, large: 16} if arguments.quick else {small: 960, large: 240}
    rows = [
        measure(replace(case, num_images=count), shorter_side, 1 if arguments.quick else arguments.rounds)
        for case, count in counts.items()
        for shorter_side in (None, SHORTER_SIDE)
    ]
    table = Table("images", "shorter side", *(f"{workers} workers, images/s (ratio)" for workers in WORKERS))
    for row in rows:
        speeds = (f"{row['images_per_second'][workers]:.0f} ({row['speed_ratio'][workers]:.2f})" for workers in WORKERS)
        table.add_row(row["images"], str(row["shorter_side"] or "as it is"), *speeds)
    console.print(table)
    machine = {
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "load_average_before": load_before,
        "load_average_after": os.getloadavg()[0],
    }
    console.print(f"load average {load_before:.1f} before, {machine['load_average_after']:.1f} after")
    path = arguments.output or RESULTS / f"{now:%Y-%m-%d}-{platform.node()}-build_shards.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        path, {"schema_version": 1, "measured": now.isoformat(timespec="seconds"), "machine": machine, "rows": rows}
    )
    console.print(f"wrote {path}")


if __name__ == "__main__":
    main()
