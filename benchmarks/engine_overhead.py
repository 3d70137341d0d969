"""How much slower than a hand-written torch loop is the engine, on one process?

    python benchmarks/engine_overhead.py                       # Ti, S and B: half an hour on a free core
    python benchmarks/engine_overhead.py --presets B --strategies zero1
    python benchmarks/engine_overhead.py --quick               # does it run at all

XTRA at 224 pixels, patch 16, block side 2. A step is forward and backward passes of `accumulation` micro batches, then
clipping, fused AdamW and the schedule. Loop and engine start from the same weights, see the same images and take turns,
a step each; who is first alternates. A ratio is the median over turns of engine / loop (above 1: the engine is slower),
its spread the quartiles. On a CPU time is what the process has used of it, with one thread, which other work on the
machine moves least; the ratio of the wall clock stands beside it. On a GPU time is the wall clock once the device is
done. Every pair has a process of its own, and its losses must agree. Writes JSON beside the table.

On a CPU, engine and loop both run with a glibc that keeps what is freed, as torch's allocator does on a GPU. By default
it gives blocks over 32 MB back, and the kernel clears new pages for them at every step: ZeRO's flat gradients most of
all. `--malloc default` measures that.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from objective_step import machine, median_ratio
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from arvis_scale.atomic import write_json
from arvis_scale.config import RunConfig, build_config
from arvis_scale.engine.distributed import Processes, join_processes
from arvis_scale.engine.parallel.optimizer import build_optimizer
from arvis_scale.engine.parallel.schedule import build_schedule
from arvis_scale.engine.parallel.zero_engine import ZeroEngine
from arvis_scale.engine.setup import objective_of
from arvis_scale.models.presets import PRESETS

RESULTS = Path(__file__).parent / "results"
STRATEGIES = ("zero0", "zero1", "zero2", "zero3")
# Turns before those that count: AdamW's state is made, ZeRO-3 records in which order it needs parameters.
WARMUP_ROUNDS = 2
# The same operations on the same numbers, but for the order in which squares are summed into the gradient norm.
TOLERANCE = 1e-6

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    preset: str
    micro_batch_size: int
    accumulation: int
    strategy: str

    def config(self, num_steps: int, settings: dict[str, Any] | None = None) -> RunConfig:
        """Return the run: the recipes' optimizer without a warm-up, so that the losses move at once.

        `settings`: keys of DeepSpeed's configuration to replace.
        """
        values = {
            "name": "engine_overhead",
            "output": "-",
            "data.shards": "-",
            "objective": "xtra",
            "preset": self.preset,
            "image_size": 224,
            "patch_size": 16,
            "xtra.block_side": 2,
            "samples_seen": num_steps * self.accumulation * self.micro_batch_size,
            "global_batch_size": self.accumulation * self.micro_batch_size,
            "micro_batch_size": self.micro_batch_size,
            "optimizer.learning_rate": 1e-4,
            "optimizer.warmup_fraction": 0.0,
            "parallel.strategy": self.strategy,
            "parallel.deepspeed": settings or {},
        }
        return build_config({}, values, "engine_overhead")


# Variables of glibc's malloc with which it neither maps large blocks by themselves nor returns what is freed.
KEEPING_MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


class TorchLoop:
    """What one would write without an engine."""

    def __init__(self, model: nn.Module, config: RunConfig) -> None:
        self._model = model
        self._clip_grad_norm = config.optimizer.clip_grad_norm
        self._optimizer = build_optimizer(model, config.optimizer)
        self._schedule = build_schedule(self._optimizer, config)

    def step(self, batches: list[Batch]) -> Tensor:
        """Do one optimizer step and return its loss."""
        losses = []
        for batch in batches:
            loss, _ = self._model(batch)
            (loss / len(batches)).backward()
            losses.append(loss.detach())
        nn.utils.clip_grad_norm_(self._model.parameters(), self._clip_grad_norm)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        return torch.stack(losses).mean()


def contenders(config: RunConfig, processes: Processes) -> dict[str, Callable[[list[Batch]], Tensor]]:
    """Return a step of the `engine` and one of the `loop`, with the same weights."""
    loop = TorchLoop(objective_of(config, None).to(processes.device), config)
    engine = ZeroEngine(objective_of(config, None).to(processes.device), config, processes)

    def engine_step(batches: list[Batch]) -> Tensor:
        outcomes = engine.train_step(iter(batches).__next__)
        return torch.stack([loss for loss, _ in outcomes]).mean()

    return {"engine": engine_step, "loop": loop.step}


def random_batches(config: RunConfig, step: int, device: torch.device) -> list[Batch]:
    """Return the micro batches of a step with normalized images, as the engine's preparation leaves them."""
    generator = torch.Generator().manual_seed(step)
    size = config.micro_batch_size
    batches = []
    for number in range(config.accumulation_steps):
        images = torch.randn(size, 3, config.image_size, config.image_size, generator=generator)
        seeds = step * config.global_batch_size + number * size + torch.arange(size)
        batch = {"images": images, "sample_seeds": seeds, "step": torch.tensor(step)}
        batches.append({key: value.to(device) for key, value in batch.items()})
    return batches


def measure(case: Case, rounds: int, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return one row: seconds, ratios and the greatest difference of losses; meant for a process of its own."""
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    processes, config = join_processes(), case.config(WARMUP_ROUNDS + rounds, settings)
    steps = contenders(config, processes)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    wall_seconds: dict[str, list[float]] = {name: [] for name in steps}
    difference = 0.0
    for turn in range(WARMUP_ROUNDS + rounds):
        batches, losses = random_batches(config, turn, processes.device), {}
        for name in steps if turn % 2 else reversed(steps):
            start = clocks()
            losses[name] = float(steps[name](batches))
            taken, taken_wall = (end - begin for begin, end in zip(start, clocks(), strict=True))
            if turn >= WARMUP_ROUNDS:
                seconds[name].append(taken)
                wall_seconds[name].append(taken_wall)
        difference = max(difference, abs(losses["engine"] - losses["loop"]))
        if not difference <= TOLERANCE:
            raise ValueError(f"{case}: losses {losses} at step {turn}; engine and loop must agree")
    ratios = [engine / loop for engine, loop in zip(seconds["engine"], seconds["loop"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3
    return {
        **asdict(case),
        "rounds": rounds,
        "loop_seconds": statistics.median(seconds["loop"]),
        "engine_seconds": statistics.median(seconds["engine"]),
        "time_ratio": middle,
        "time_ratio_quartiles": [low, high],
        "wall_time_ratio": median_ratio(wall_seconds["engine"], wall_seconds["loop"]),
        "greatest_loss_difference": difference,
        "load_average": os.getloadavg()[0],
    }


def clocks() -> tuple[float, float]:
    """Return in seconds what this process has used of a CPU (on a GPU: the wall clock), and the wall clock."""
    if not torch.cuda.is_available():
        return time.process_time(), time.perf_counter()
    torch.cuda.synchronize()
    return (time.perf_counter(),) * 2


def print_table(rows: list[dict[str, Any]], console: Console) -> None:
    """Print one row per case; pairs are engine / loop."""
    table = Table("XTRA, 224 px, patch 16", "strategy", "seconds", "ratio", "quartiles", "ratio of wall clock")
    for row in rows:
        low, high = row["time_ratio_quartiles"]
        table.add_row(
            f"{row['preset']}, {row['micro_batch_size']} x {row['accumulation']}",
            row["strategy"],
            f"{row['engine_seconds']:.3f} / {row['loop_seconds']:.3f}",
            f"{row['time_ratio']:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{row['wall_time_ratio']:.3f}",
        )
    console.print(table)


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["Ti", "S", "B"], choices=list(PRESETS))
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--batches", nargs="+", default=["1x1", "8x1"], help="micro batch size x accumulation")
    parser.add_argument("--rounds", type=int, default=8, help="turns that count")
    parser.add_argument("--malloc", default="keeping", choices=["keeping", "default"], help="what freed memory becomes")
    parser.add_argument("--quick", action="store_true", help="nano, one batch size, one round")
    parser.add_argument("--output", type=Path, help="JSON file; by default results/DATE-HOST-engine_overhead.json")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.presets, arguments.batches, arguments.rounds = ["nano"], ["2x2"], 1
    return arguments


def main() -> None:
    """Measure all cases, print the table and write the JSON file, anew after each case."""
    arguments, console = parse_arguments(), Console(width=120)
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # as every measuring process does, for the record
    if arguments.malloc == "keeping":
        os.environ.update(KEEPING_MALLOC)  # the measuring processes read it when they start
    now, rows = datetime.now(timezone.utc), []
    path = arguments.output or RESULTS / f"{now:%Y-%m-%d}-{platform.node()}-engine_overhead.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"schema_version": 1, "measured": now.isoformat(timespec="seconds"), "machine": machine()}
    record["malloc"] = arguments.malloc
    for preset, batches, strategy in itertools.product(arguments.presets, arguments.batches, arguments.strategies):
        micro_batch_size, accumulation = map(int, batches.split("x"))
        case = Case(preset, micro_batch_size, accumulation, strategy)
        console.print(f"[dim]{case}")
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh_process:
            rows.append(fresh_process.submit(measure, case, arguments.rounds).result())
        write_json(path, {**record, "rows": rows})
    print_table(rows, console)
    console.print(f"wrote {path}")


if __name__ == "__main__":
    main()
