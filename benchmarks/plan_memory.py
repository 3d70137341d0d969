"""How far is `arvis-scale plan` from the memory that training takes?

    python benchmarks/plan_memory.py                     # the table: twenty minutes on two cores, up to 6 GB
    python benchmarks/plan_memory.py --cases 0 3 5       # some of its rows

Each row trains three steps in fresh processes on random images, through the engine that `arvis-scale train` uses. On a
CPU its memory is the highest resident set of the fullest process, less what is resident once everything is imported and
the processes have met; glibc is told to give memory back at once. On a GPU it is the allocator's highest. The plan's
rules were worked out on the S/16 rows, which therefore prove little; igpt-S and B were only compared. What a process
holds beside its tensors (planning/calibration.json) was found with preset pico. Writes JSON beside the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
NUM_STEPS = 3
# glibc keeps freed memory for itself otherwise, by rules that depend on what was freed before.
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
MODELS: dict[str, dict[str, Any]] = {
    "xtra S/16": {"objective": "xtra", "preset": "S", "xtra": {"block_side": 2}},
    "digpt S/16": {"objective": "digpt", "preset": "S"},
    # Between S and B: 12 layers more, 128 channels more.
    "xtra igpt-S/16": {"objective": "xtra", "preset": "igpt-S", "xtra": {"block_side": 2}},
    "xtra B/16": {"objective": "xtra", "preset": "B", "xtra": {"block_side": 2}},
    "digpt B/16": {"objective": "digpt", "preset": "B"},
}
# Model, strategy, processes, precision, micro batch, accumulation, activation checkpointing.
CASES: list[tuple[str, str, int, str, int, int, int]] = [
    ("xtra S/16", "zero0", 1, "fp32", 4, 1, 0),
    ("xtra S/16", "zero1", 2, "fp32", 4, 1, 0),
    ("xtra S/16", "zero2", 2, "bf16", 4, 2, 0),
    ("xtra S/16", "zero3", 2, "fp32", 4, 1, 0),
    ("xtra S/16", "zero3_offload", 2, "bf16", 4, 1, 0),
    ("xtra S/16", "pipeline", 2, "fp32", 4, 4, 0),
    ("digpt S/16", "zero1", 1, "bf16", 8, 1, 0),
    ("digpt S/16", "zero2", 2, "fp32", 4, 1, 0),
    ("digpt S/16", "zero3", 2, "fp32", 4, 1, 1),
    ("digpt S/16", "pipeline", 2, "fp32", 4, 4, 0),
    ("xtra igpt-S/16", "zero0", 1, "fp32", 4, 1, 0),
    ("xtra igpt-S/16", "zero1", 1, "fp32", 4, 1, 0),
    ("xtra igpt-S/16", "zero2", 2, "fp32", 4, 1, 0),
    ("xtra igpt-S/16", "zero3", 2, "bf16", 4, 1, 0),
    ("xtra igpt-S/16", "pipeline", 2, "bf16", 4, 4, 0),
    ("xtra B/16", "zero0", 1, "fp32", 4, 1, 0),
    ("xtra B/16", "zero1", 1, "fp32", 4, 1, 1),
    ("xtra B/16", "zero2", 2, "bf16", 4, 1, 0),
    ("xtra B/16", "zero3", 2, "bf16", 4, 1, 0),
    ("xtra B/16", "zero3_offload", 2, "bf16", 2, 1, 0),
    ("xtra B/16", "pipeline", 2, "bf16", 2, 2, 0),
    ("digpt B/16", "zero1", 2, "bf16", 4, 1, 0),
    ("digpt B/16", "zero3", 2, "bf16", 4, 1, 2),
]


def config_of(case: tuple[str, str, int, str, int, int, int]) -> dict[str, Any]:
    """Return the run configuration of a row, as YAML holds it."""
    model, strategy, processes, precision, micro_batch, accumulation, checkpointing = case
    stages = processes if strategy == "pipeline" else 1
    batch = micro_batch * accumulation * processes // stages
    return {
        "name": f"{model} {strategy}",
        "output": "unused",
        "image_size": 224,
        "patch_size": 16,
        "samples_seen": NUM_STEPS * batch,
        "global_batch_size": batch,
        "micro_batch_size": micro_batch,
        "precision": precision,
        "data": {"shards": "unused"},
        "teacher": {"kind": "pixels"},
        "parallel": {
            "strategy": strategy,
            "processes": processes,
            "stages": stages,
            "activation_checkpointing_every": checkpointing,
        },
        **MODELS[model],
    }


def measure(values: dict[str, Any]) -> list[dict[str, float]]:
    """Train the configuration in fresh processes; return bytes and seconds of a step of each."""
    from arvis_scale.engine.ports import free_port

    num_processes = values["parallel"]["processes"]
    shared = {
        **os.environ,
        **MALLOC,
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    command = [sys.executable, __file__, "--worker", json.dumps(values)]
    with tempfile.TemporaryFile("w+") as errors:
        ranks = [
            subprocess.Popen(
                command,
                env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            for rank in range(num_processes)
        ]
        outputs = [process.communicate()[0] for process in ranks]
        if any(process.returncode for process in ranks):
            errors.seek(0)
            raise RuntimeError(f"a process of {values['name']} failed: {errors.read()[-3000:]}")
    return [json.loads(output.strip().splitlines()[-1]) for output in outputs]


def work(values: dict[str, Any]) -> None:
    """Be one of the processes of `measure`; print what this one took."""
    import time

    import torch

    from arvis_scale.config import build_config
    from arvis_scale.engine.distributed import join_processes
    from arvis_scale.engine.setup import Preparation, load_teacher_of
    from arvis_scale.engine.train import start_engine
    from arvis_scale.planning.peaks import device_peak

    torch.set_num_threads(1)
    config = build_config(values, {}, "this row")
    processes = join_processes()
    resident = _start_counting()
    teacher = load_teacher_of(config, processes.device) if processes.rank < config.data_parallel_size else None
    prepare = Preparation(processes.device, teacher)
    _, engine = start_engine(config, processes)
    side, generator = config.image_size, torch.Generator().manual_seed(processes.rank)

    def next_batch() -> dict[str, torch.Tensor]:
        images = torch.randint(0, 256, (config.micro_batch_size, 3, side, side), dtype=torch.uint8, generator=generator)
        batch = prepare({"images": images, "sample_seeds": torch.arange(config.micro_batch_size)})
        return {**batch, "step": torch.tensor(0, device=processes.device)}

    seconds, processor_seconds = [], []
    for _ in range(config.num_steps):
        started, started_processor = time.perf_counter(), time.process_time()
        engine.train_step(next_batch)
        if processes.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        processor_seconds.append(time.process_time() - started_processor)
    is_cpu = processes.device.type == "cpu"
    peak = _undisturbed_peak(config.precision) if is_cpu else device_peak(processes.device, config.precision)
    took = {"seconds": min(seconds), "processor_seconds": min(processor_seconds), "peak_tflops": peak}
    print(json.dumps({"bytes": _most() - resident, "resident": resident, **took}), flush=True)


def _undisturbed_peak(precision: str) -> float:
    """Return the TFLOP/s of one thread's matrix products by its processor time, which other work hardly touches."""
    import time

    import torch

    side, num_products = 1024, 20
    matrix = torch.full((side, side), 0.5, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    product, seconds = torch.mm(matrix, matrix), []
    for _ in range(num_products):
        started = time.process_time()
        torch.mm(matrix, matrix, out=product)
        seconds.append(time.process_time() - started)
    return 2 * side**3 / min(seconds) / 1e12


def _start_counting() -> int:
    """Forget the highest memory so far; return the bytes held now."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _most() -> int:
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def compare(case: tuple[str, str, int, str, int, int, int]) -> dict[str, Any]:
    """Return a row of the table: what was predicted and what was measured."""
    from arvis_scale.config import build_config
    from arvis_scale.engine.run_plan import plan_run

    values = config_of(case)
    peak = plan_run(build_config(values, {}, "this row")).chosen.peak
    assert peak is not None, "every row can be trained"
    ranks = measure(values)
    measured = max(rank["bytes"] for rank in ranks)
    names = ("model", "strategy", "processes", "precision", "micro_batch_size", "accumulation", "checkpointing")
    return {
        **dict(zip(names, case, strict=True)),
        "predicted_bytes": peak.total,
        "reached_in": peak.name,
        "measured_bytes": measured,
        "error": peak.total / measured - 1,
        "seconds_per_step": max(rank["seconds"] for rank in ranks),
    }


def render(rows: list[dict[str, Any]]) -> Table:
    """Return the table."""
    table = Table("model", "strategy", "processes", "precision", "micro batch", "predicted MB", "measured MB", "error")
    for row in rows:
        micro = f"{row['accumulation']} x {row['micro_batch_size']}"
        micro += f", checkpointing {row['checkpointing']}" if row["checkpointing"] else ""
        table.add_row(
            row["model"],
            row["strategy"],
            str(row["processes"]),
            row["precision"],
            micro,
            f"{row['predicted_bytes'] / 1e6:,.0f}",
            f"{row['measured_bytes'] / 1e6:,.0f}",
            f"{row['error']:+.1%}",
        )
    return table


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, nargs="+", help="numbers of rows, from 0; by default all")
    parser.add_argument(
        "--output", type=Path, help="JSON file; by default benchmarks/results/DATE-HOST-plan_memory.json"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    from arvis_scale.atomic import write_json

    date = datetime.now(timezone.utc).date()
    output = arguments.output or RESULTS / f"{date}-{platform.node()}-plan_memory.json"
    rows = []
    for number in arguments.cases or range(len(CASES)):
        rows.append(compare(CASES[number]))
        write_json(output, {"schema_version": 1, "date": str(date), "cpus": os.cpu_count(), "rows": rows})
        Console().print(render(rows[-1:]))
    Console().print(render(rows))


if __name__ == "__main__":
    main()
