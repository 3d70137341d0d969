"""How long does a training step of each objective take, and how much memory, against the plainest correct formulation?

    python benchmarks/objective_step.py                                  # S, a few minutes on one core
    python benchmarks/objective_step.py --presets S B                    # the table of a laptop
    python benchmarks/objective_step.py --presets B L H --precisions bf16  # the table of a GPU
    python benchmarks/objective_step.py --quick                          # does it run at all

Forward and backward pass of ours and of `plain_objectives.py`, same weights and batch, losses compared first. The two
take turns, and a ratio is the median over turns of plain / ours (above 1: ours is faster). On a GPU time is wall clock;
on a CPU it is the processor time of one thread, which other work on the machine hardly touches. The plain encoder
without a mask is itself measured against timm's ViT. Peak memory is that of a fresh process: resident on a CPU,
allocated on a GPU. Stochastic depth is off. Writes JSON beside the table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from plain_objectives import PLAIN, PlainEncoder
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from arvis_scale.atomic import write_json
from arvis_scale.models import draws
from arvis_scale.models.build import build_objective, objective_arguments
from arvis_scale.models.igpt import Igpt
from arvis_scale.models.presets import PRESETS
from arvis_scale.planning.costs import objective_cost, total_cost

RESULTS = Path(__file__).parent / "results"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Losses of the two formulations agree to rounding.
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}
# Images of a step, 1 where nothing is said: enough to fill the device.
BATCH_SIZE = {"cpu": {"nano": 2}, "cuda": {"S": 256, "B": 128, "L": 64, "H": 32}}


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    objective: str
    preset: str
    precision: str
    batch_size: int

    def arguments(self) -> dict[str, Any]:
        """Return the published shape of the objective, as `build_objective` takes it."""
        patch = 14 if self.preset in ("H", "g") or self.objective == "aim" else 16
        if self.objective == "xtra":
            image = 224 if patch == 14 else 256
            return {"preset": self.preset, "image_size": image, "patch_size": patch, "options": {"drop_path": 0.0}}
        shape = {"preset": self.preset, "image_size": 224, "patch_size": patch}
        if self.objective == "digpt":
            side = 7 if patch == 16 else 8
            return {**shape, "options": {"segment_side": side}, "teacher_width": 1024, "teacher_grid": 16}
        return shape

    def batch(self) -> dict[str, Tensor]:
        """Return random images and everything drawn, the same for every contender."""
        arguments = self.arguments()
        generator = torch.Generator().manual_seed(0)
        size, grid = arguments["image_size"], arguments["image_size"] // arguments["patch_size"]
        seeds = torch.arange(self.batch_size)
        batch = {"images": torch.randn(self.batch_size, 3, size, size, generator=generator), "sample_seeds": seeds}
        if self.objective == "aim":
            batch["prefix_length"] = draws.prefix_lengths(seeds, grid**2)
        if self.objective == "mae":
            batch["visible_patches"] = draws.patch_orders(seeds, grid**2)[:, : grid**2 // 4]
        if self.objective == "digpt":
            batch["segment_order"] = draws.segment_orders(seeds, 4)
            tokens = torch.randn(self.batch_size, 1 + 16**2, 1024, generator=generator)
            batch["teacher_tokens"] = tokens.to(DTYPES[self.precision])
        return {key: value.to(device()) for key, value in batch.items()}

    def steps(self) -> dict[str, Callable[[], Tensor]]:
        """Return the forward pass to the loss of `ours` and `plain`, with the same weights."""
        torch.manual_seed(0)
        ours = build_objective(self.objective, **self.arguments())
        plain = PLAIN[self.objective](SimpleNamespace(**objective_arguments(self.objective, **self.arguments())))
        weights = ours.state_dict()
        plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
        batch = self.batch()
        if isinstance(ours, Igpt):
            batch["colors"] = ours.to(device()).encoder.quantize(batch["images"])
        ours, plain = self._place(ours), self._place(plain)
        return {"ours": lambda: ours(batch)[0], "plain": lambda: plain(batch)}

    def encoder_steps(self) -> dict[str, Callable[[], Tensor]]:
        """Return the forward pass of the plain encoder without a mask and of timm's, with learned positions."""
        from timm.models.vision_transformer import VisionTransformer

        shape = SimpleNamespace(**objective_arguments(self.objective, **self.arguments()))
        size, images = shape.size, self.batch()["images"].to(DTYPES[self.precision])
        plain = self._place(PlainEncoder(shape, learned=True))
        timms = VisionTransformer(
            img_size=shape.image_size,
            patch_size=shape.patch_size,
            embed_dim=size.width,
            depth=size.depth,
            num_heads=size.num_heads,
            mlp_ratio=size.mlp_hidden / size.width,
            class_token=False,
            global_pool="",
            num_classes=0,
        )
        timms = self._place(timms)
        return {"plain": lambda: plain(images).float().mean(), "timm": lambda: timms(images).float().mean()}

    def _place(self, model: nn.Module) -> nn.Module:
        for parameter in model.parameters():  # as the engine does; fixed tensors stay float32
            parameter.data = parameter.data.to(DTYPES[self.precision])
        return model.to(device()).train()


def device() -> torch.device:
    """Return where everything runs."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds_of(step: Callable[[], Tensor]) -> float:
    """Return the seconds of one forward and backward pass."""
    start = clock()
    step().backward()
    return clock() - start


def clock() -> float:
    """Return the time in seconds: that of the wall once the GPU is done, or what this process has used of a CPU."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def take_turns(steps: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every step in each round, after one round that does not count; who is first alternates."""
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names if turn % 2 else reversed(names):
            taken = seconds_of(steps[name])
            if turn:
                seconds[name].append(taken)
    return seconds


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Return the median over rounds of the ratio within the round."""
    return statistics.median(above / below for above, below in zip(numerator, denominator, strict=True))


def peak_memory(case: Case, contender: str) -> int:
    """Return the peak memory in bytes of two steps; meant for a process of its own."""
    torch.set_num_threads(1)
    step = case.steps()[contender]
    for _ in range(2):
        step().backward()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    # ru_maxrss would count what the starting process held; the high-water mark of this process does not.
    [kibibytes] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kibibytes) * 1024


def in_fresh_process(function: Callable[..., int], *arguments: Any) -> int:
    """Return `function(*arguments)` as computed by a new Python process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def matmul_tflops(precision: str) -> float:
    """Return the best TFLOP/s of a large square matrix product: what the device can do at most."""
    side = 8192 if torch.cuda.is_available() else 1536
    a = torch.randn(side, side, device=device(), dtype=DTYPES[precision])
    best = float("inf")
    for _ in range(10):
        start = clock()
        a @ a
        best = min(best, clock() - start)
    return 2 * side**3 / best / 1e12


def measure(case: Case, rounds: int, ceiling: float) -> dict[str, Any]:
    """Return one row: seconds, ratio, images/s, TFLOP/s and peak memory of ours and plain."""
    steps = case.steps()
    with torch.no_grad():
        ours, plain = (float(steps[name]()) for name in ("ours", "plain"))
    if abs(ours - plain) > TOLERANCE[case.precision] * abs(plain):
        raise ValueError(f"{case}: our loss is {ours}, that of the plain formulation {plain}; they must agree")
    seconds = take_turns(steps, rounds)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    flops = total_cost(objective_cost(case.objective, **case.arguments())).train_flops
    tflops = flops * case.batch_size / median["ours"] / 1e12
    return {
        **asdict(case),
        "ours_seconds": median["ours"],
        "plain_seconds": median["plain"],
        "speed_ratio": median_ratio(seconds["plain"], seconds["ours"]),
        "ours_peak_bytes": in_fresh_process(peak_memory, case, "ours"),
        "plain_peak_bytes": in_fresh_process(peak_memory, case, "plain"),
        "images_per_second": case.batch_size / median["ours"],
        "tflops": tflops,
        "share_of_matmul": tflops / ceiling,
    }


def measure_encoder(case: Case, rounds: int) -> dict[str, Any]:
    """Return how fast the plain encoder is, as a fraction of timm's speed."""
    seconds = take_turns(case.encoder_steps(), rounds)
    return {
        "preset": case.preset,
        "precision": case.precision,
        "batch_size": case.batch_size,
        "plain_seconds": statistics.median(seconds["plain"]),
        "timm_seconds": statistics.median(seconds["timm"]),
        "speed_ratio": median_ratio(seconds["timm"], seconds["plain"]),
    }


def print_tables(objectives: list[dict[str, Any]], encoders: list[dict[str, Any]], console: Console) -> None:
    """Print one row per case; pairs are ours / plain."""
    columns = ("objective", "batch", "seconds", "speed ratio", "peak GB", "images/s", "TFLOP/s", "of matmul")
    table = Table(*columns)
    for row in objectives:
        table.add_row(
            f"{row['objective']} {row['preset']} {row['precision']}",
            str(row["batch_size"]),
            f"{row['ours_seconds']:.3f} / {row['plain_seconds']:.3f}",
            f"{row['speed_ratio']:.3f}",
            f"{row['ours_peak_bytes'] / 1e9:.2f} / {row['plain_peak_bytes'] / 1e9:.2f}",
            f"{row['images_per_second']:.1f}",
            f"{row['tflops']:.3f}",
            f"{row['share_of_matmul']:.0%}",
        )
    console.print(table)
    table = Table("plain encoder, no mask", "batch", "seconds, timm's", "speed of timm's")
    for row in encoders:
        table.add_row(
            f"{row['preset']} {row['precision']}",
            str(row["batch_size"]),
            f"{row['plain_seconds']:.3f} / {row['timm_seconds']:.3f}",
            f"{row['speed_ratio']:.1%}",
        )
    console.print(table)


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    return {
        "host": platform.node(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
    }


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objectives", nargs="+", default=list(PLAIN), choices=list(PLAIN))
    parser.add_argument("--presets", nargs="+", default=["S"], choices=list(PRESETS))
    parser.add_argument("--precisions", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--batch-size", type=int, help="images of a step; by default what fits the preset")
    parser.add_argument("--rounds", type=int, default=3, help="turns that count")
    parser.add_argument("--quick", action="store_true", help="nano, fp32, one round")
    parser.add_argument(
        "--output", type=Path, help="JSON file; by default benchmarks/results/DATE-HOST-objective_step.json"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.presets, arguments.precisions, arguments.rounds = ["nano"], ["fp32"], 1
    return arguments


def main() -> None:
    """Measure all cases, print the tables and write the JSON file."""
    arguments, console = parse_arguments(), Console(width=120)
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    now = datetime.now(timezone.utc)
    objectives, encoders, ceilings = [], [], {}
    for precision in arguments.precisions:
        ceilings[precision] = matmul_tflops(precision)
        for preset in arguments.presets:
            batch_size = arguments.batch_size or BATCH_SIZE[device().type].get(preset, 1)
            encoders.append(measure_encoder(Case("xtra", preset, precision, batch_size), arguments.rounds))
            for objective in arguments.objectives:
                case = Case(objective, preset, precision, batch_size)
                console.print(f"[dim]{case}")
                objectives.append(measure(case, arguments.rounds, ceilings[precision]))
    print_tables(objectives, encoders, console)
    path = arguments.output or RESULTS / f"{now:%Y-%m-%d}-{platform.node()}-objective_step.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"measured": now.isoformat(timespec="seconds"), "machine": machine(), "matmul_tflops": ceilings}
    write_json(path, {"schema_version": 1, **record, "objectives": objectives, "encoders": encoders})
    console.print(f"wrote {path}")


if __name__ == "__main__":
    main()
