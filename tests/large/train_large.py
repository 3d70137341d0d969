"""Every size really trains: XTRA and D-iGPT at B/16, L/16 and H/14, two steps under ZeRO-3 and in a pipeline.

    make test-large                                          # an hour and 22 GB on two cores, no GPU
    python tests/large/train_large.py --sizes B              # some of it

Two processes each, bf16, micro batches of one image of 224 pixels, activation checkpointing in every block. On a CPU
there is nowhere to offload to; instead ZeRO-3 is told to let go of parameters at once. D-iGPT's teacher is the pixels
themselves: the ViT-H/14 that the paper uses would take 2.5 GB in each process and is tested with small weights
elsewhere. Seconds and memory stand beside what `arvis-scale plan` says, as JSON and as a table.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from arvis_scale.atomic import write_json, write_text
from arvis_scale.config import build_config
from arvis_scale.engine.run_plan import plan_run

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from plan_memory import measure  # noqa: E402 - the benchmarks are no package

PATCH_SIZES = {"B": 16, "L": 16, "H": 14}
# XTRA's published blocks of 4 patches do not divide 14 x 14 patches.
SIDES = {16: {"xtra": 2, "digpt": 7}, 14: {"xtra": 4, "digpt": 8}}
LET_GO = {"zero_optimization": {"stage3_max_reuse_distance": 0, "stage3_prefetch_bucket_size": 10**7}}
NUM_PROCESSES, NUM_STEPS = 2, 2
LIMIT_BYTES = 22e9


def config_of(objective: str, preset: str, strategy: str) -> dict[str, Any]:
    """Return the run configuration of a row, as YAML holds it."""
    patch_size = PATCH_SIZES[preset]
    stages = NUM_PROCESSES if strategy == "pipeline" else 1
    side = SIDES[patch_size][objective]
    return {
        "name": f"{objective} {preset}/{patch_size} {strategy}",
        "output": "unused",
        "objective": objective,
        "preset": preset,
        "image_size": 224,
        "patch_size": patch_size,
        "samples_seen": NUM_STEPS * NUM_PROCESSES,
        "global_batch_size": NUM_PROCESSES,
        "micro_batch_size": 1,
        "precision": "bf16",
        "data": {"shards": "unused"},
        "teacher": {"kind": "pixels"},
        "xtra": {"block_side": side if objective == "xtra" else 1},
        "digpt": {"segment_side": side if objective == "digpt" else 1},
        "parallel": {
            "strategy": strategy,
            "processes": NUM_PROCESSES,
            "stages": stages,
            "activation_checkpointing_every": 1,
            "deepspeed": LET_GO if strategy == "zero3" else {},
        },
    }


def train(objective: str, preset: str, strategy: str) -> dict[str, Any]:
    """Train one row in fresh processes; return what was predicted and what was seen."""
    values = config_of(objective, preset, strategy)
    plan = plan_run(build_config(values, {}, values["name"]), "cpu")
    peak = plan.chosen.peak
    assert peak is not None, "every row can be trained"
    ranks = measure(values)
    sizes = [rank["bytes"] for rank in ranks]
    return {
        "objective": objective,
        "preset": preset,
        "strategy": strategy,
        "params": plan.params_total,
        "seconds_per_step": max(rank["seconds"] for rank in ranks),
        "predicted_seconds_per_step": plan.step_seconds,
        "bytes_fullest": max(sizes),
        "bytes_all": sum(sizes),
        "resident_all": sum(rank["resident"] for rank in ranks),
        "predicted_bytes_fullest": peak.total,
    }


def render(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    lines = [
        "| model | strategy | parameters | seconds per step (plan) | GB, fullest process (plan) | GB of both |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['objective']} {row['preset']} | {row['strategy']} 2 | {row['params'] / 1e6:,.0f}M "
            f"| {row['seconds_per_step']:.1f} ({row['predicted_seconds_per_step']:.1f}) "
            f"| {row['bytes_fullest'] / 1e9:.2f} ({row['predicted_bytes_fullest'] / 1e9:.2f}) "
            f"| {(row['bytes_all'] + row['resident_all']) / 1e9:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, and write what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=list(PATCH_SIZES), choices=list(PATCH_SIZES))
    parser.add_argument("--objectives", nargs="+", default=["xtra", "digpt"], choices=["xtra", "digpt"])
    parser.add_argument("--strategies", nargs="+", default=["zero3", "pipeline"], choices=["zero3", "pipeline"])
    parser.add_argument("--output", type=Path, help="without suffix; by default benchmarks/results/DATE-HOST-large")
    arguments = parser.parse_args()
    date = datetime.now(timezone.utc).date()
    output = arguments.output or ROOT / "benchmarks" / "results" / f"{date}-{platform.node()}-large"
    rows = []
    for preset in arguments.sizes:
        for objective in arguments.objectives:
            for strategy in arguments.strategies:
                rows.append(train(objective, preset, strategy))
                print(render(rows[-1:]).splitlines()[-1], flush=True)
                # After every row: a later one that the machine does not hold loses nothing.
                record = {"schema_version": 1, "date": str(date), "cpus": os.cpu_count(), "rows": rows}
                write_json(output.with_name(output.name + ".json"), record)
                write_text(output.with_name(output.name + ".md"), render(rows))
    too_large = [row for row in rows if row["bytes_all"] + row["resident_all"] > LIMIT_BYTES]
    for row in too_large:
        print(f"more than {LIMIT_BYTES / 1e9:.0f} GB: {row['objective']} {row['preset']} {row['strategy']}")
    sys.exit(1 if too_large else 0)


if __name__ == "__main__":
    main()
