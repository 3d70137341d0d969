"""How many seconds of training does a checkpoint cost, written in the background and not?

    python benchmarks/checkpoint_stall.py                    # S and B, ZeRO-1 and ZeRO-3: some minutes on two cores
    python benchmarks/checkpoint_stall.py --presets L H      # a GPU
    python benchmarks/checkpoint_stall.py --quick            # does it run at all

One process trains XTRA at 96 pixels, where a step is short beside a save; what a save costs depends on no image. `save`
is how long the train loop stands still; `lost` is the wall clock of the save and of the steps until its files
are complete on disk, less what as many steps take when nothing is written: slower steps beside a busy writer are
counted. The two ways take turns on the same engine, each turn measures its own steps first, and the table gives medians
over turns and their quartiles. Every row has a process of its own. Files go to --folder, which should be on the disk
that runs are written to. Writes JSON beside the table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from objective_step import device, machine
from rich.console import Console
from rich.table import Table

from arvis_scale.atomic import write_json
from arvis_scale.config import RunConfig, build_config
from arvis_scale.engine.checkpointing.checkpoints import Checkpoints
from arvis_scale.engine.checkpointing.files import checkpoint_path, disk_use
from arvis_scale.engine.distributed import join_processes
from arvis_scale.engine.parallel.zero_engine import ZeroEngine
from arvis_scale.engine.setup import objective_of
from arvis_scale.models.presets import PRESETS

RESULTS = Path(__file__).parent / "results"
STRATEGIES = ("zero0", "zero1", "zero2", "zero3")
# Seconds of training before each save, and at least so many steps, that tell how long a step takes.
CALM_SECONDS, CALM_STEPS = 3.0, 2


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    preset: str
    strategy: str
    micro_batch_size: int

    def config(self, *, background: bool) -> RunConfig:
        """Return the run."""
        values = {
            "name": "checkpoint_stall",
            "output": "-",
            "data.shards": "-",
            "objective": "xtra",
            "preset": self.preset,
            "image_size": 96,
            "samples_seen": 10**6 * self.micro_batch_size,
            "global_batch_size": self.micro_batch_size,
            "micro_batch_size": self.micro_batch_size,
            "xtra.block_side": 2,
            "parallel.strategy": self.strategy,
            "checkpoints.background": background,
            "checkpoints.keep_last": 1,
        }
        return build_config({}, values, "checkpoint_stall")


class Training:
    """An engine in training on random images."""

    def __init__(self, case: Case) -> None:
        config = case.config(background=True)
        self.processes = join_processes()
        self.engine = ZeroEngine(objective_of(config, None), config, self.processes)
        size, on = config.image_size, self.processes.device
        self._batch = {
            "images": torch.randn(case.micro_batch_size, 3, size, size, device=on),
            "sample_seeds": torch.arange(case.micro_batch_size, device=on),
            "step": torch.tensor(0, device=on),
        }
        for _ in range(2):  # AdamW's state is made, ZeRO-3 records in which order it needs parameters
            self.step()

    def step(self) -> float:
        """Do one step and return its seconds."""
        began = time.perf_counter()
        self.engine.train_step(lambda: self._batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def calm_step(self) -> float:
        """Return the median seconds of a step while nothing is written."""
        seconds: list[float] = []
        while sum(seconds) < CALM_SECONDS or len(seconds) < CALM_STEPS:
            seconds.append(self.step())
        return statistics.median(seconds)

    def save(self, checkpoints: Checkpoints, folder: Path, number: int) -> dict[str, float]:
        """Save once, train until the checkpoint is complete, and return what it cost."""
        calm = self.calm_step()
        began, num_steps = time.perf_counter(), 0
        checkpoints.save(self.engine.deepspeed, {"step": number})
        while not checkpoint_path(folder, number).exists():
            self.step()
            num_steps += 1
        total = time.perf_counter() - began
        checkpoints.wait()
        return {"save": checkpoints.save_seconds, "lost": total - num_steps * calm, "step": calm, "written": total}


def measure(case: Case, rounds: int, where: Path) -> dict[str, Any]:
    """Return one row; meant for a process of its own."""
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="checkpoint_stall-", dir=where))
    try:
        training = Training(case)
        seen: dict[str, list[dict[str, float]]] = {"background": [], "synchronous": []}
        for number in range(1, 2 * rounds + 3):  # the first of each kind does not count
            way = ("background", "synchronous")[number % 2]
            with Checkpoints(folder, training.processes, case.config(background=way == "background")) as checkpoints:
                seen[way].append(training.save(checkpoints, folder, number))
        num_bytes = max(disk_use(folder).values())
    finally:
        shutil.rmtree(folder)
    row: dict[str, Any] = {**asdict(case), "num_bytes": num_bytes}
    for way, saves in seen.items():
        for key in ("save", "lost", "step", "written"):
            row[f"{way}_{key}_seconds"] = quartiles([save[key] for save in saves[1:]])
    return row


def quartiles(values: list[float]) -> list[float]:
    """Return the first quartile, the median and the third quartile."""
    return values * 3 if len(values) == 1 else statistics.quantiles(values, n=4, method="inclusive")


def print_table(rows: list[dict[str, Any]], console: Console) -> None:
    """Print one row per case, seconds as median and quartiles."""
    table = Table("XTRA", "MB", "step s", "background: save s", "lost s", "synchronous: save s", "lost s")
    for row in rows:
        cells = [
            f"{row[f'{way}_{key}_seconds'][1]:.3f} ({row[f'{way}_{key}_seconds'][0]:.3f}-"
            f"{row[f'{way}_{key}_seconds'][2]:.3f})"
            for way in ("background", "synchronous")
            for key in ("save", "lost")
        ]
        step = f"{row['synchronous_step_seconds'][1]:.3f}"
        table.add_row(f"{row['preset']} {row['strategy']}", f"{row['num_bytes'] / 1e6:.0f}", step, *cells)
    console.print(table)


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["S", "B"], choices=list(PRESETS))
    parser.add_argument("--strategies", nargs="+", default=["zero1", "zero3"], choices=STRATEGIES)
    parser.add_argument("--batch-size", type=int, help="images of a step; by default 1 on a CPU, 64 on a GPU")
    parser.add_argument("--rounds", type=int, default=5, help="saves of each kind that count")
    parser.add_argument("--folder", type=Path, default=Path(), help="where checkpoints are written; default: here")
    parser.add_argument("--quick", action="store_true", help="nano, ZeRO-1, one round")
    parser.add_argument(
        "--output", type=Path, help="JSON file; by default benchmarks/results/DATE-HOST-checkpoint_stall.json"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.presets, arguments.strategies, arguments.rounds = ["nano"], ["zero1"], 1
    return arguments


def main() -> None:
    """Measure all cases, print the table and write the JSON file."""
    arguments, console = parse_arguments(), Console(width=140)
    now, rows = datetime.now(timezone.utc), []
    for preset in arguments.presets:
        for strategy in arguments.strategies:
            batch_size = arguments.batch_size or {"cpu": 1, "cuda": 64}[device().type]
            case = Case(preset, strategy, batch_size)
            console.print(f"[dim]{case}")
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                rows.append(pool.submit(measure, case, arguments.rounds, arguments.folder).result())
    print_table(rows, console)
    path = arguments.output or RESULTS / f"{now:%Y-%m-%d}-{platform.node()}-checkpoint_stall.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"measured": now.isoformat(timespec="seconds"), "machine": machine()}
    write_json(path, {"schema_version": 1, **record, "rows": rows})
    console.print(f"wrote {path}")


if __name__ == "__main__":
    main()
