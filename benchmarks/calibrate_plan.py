"""What `arvis-scale plan` knows of this machine: the fraction of its peak that training reaches, by size.

    python benchmarks/calibrate_plan.py                        # ten minutes on a CPU; shows what it finds
    python benchmarks/calibrate_plan.py --device h200 --write  # and puts it into arvis_scale/planning/calibration.json

XTRA under ZeRO-1 on one process, so that nothing waits for a network; seconds of the best of three steps. On a CPU also
what a process holds beside its tensors, which preset pico shows, whose tensors are next to nothing. Entries of other
devices are kept.
"""

from __future__ import annotations

import argparse
import os
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any

from plan_memory import MODELS, config_of, measure
from rich.console import Console

from arvis_scale.atomic import read_json, write_json
from arvis_scale.config import build_config
from arvis_scale.engine.run_plan import plan_run
from arvis_scale.planning.devices import DEVICES, device_here

# Preset and micro batch.
SIZES = {
    "cpu": [("Ti", 1), ("Ti", 8), ("S", 1), ("S", 8), ("B", 2)],
    "gpu": [("S", 64), ("B", 128), ("L", 128), ("H", 64)],
}
MODELS.update(
    {f"xtra {preset}": {**MODELS["xtra S/16"], "preset": preset} for preset in ("pico", "Ti", "S", "B", "L", "H")}
)


def speeds(device: str, precision: str) -> dict[str, Any]:
    """Return the calibration entry of a device and a precision."""
    points = []
    for preset, micro_batch in SIZES["cpu" if device == "cpu" else "gpu"]:
        values = config_of((f"xtra {preset}", "zero1", 1, precision, micro_batch, 1, 0))
        flops = plan_run(build_config(values, {}, "calibration"), device).flops_per_image * micro_batch
        [rank] = measure(values)
        # Of one thread, which other work on the machine hardly touches; a GPU works while its thread waits.
        seconds = rank["processor_seconds" if device == "cpu" else "seconds"]
        fraction = flops / seconds / (rank["peak_tflops"] * 1e12)
        points.append({"flops_per_pass": flops, "fraction_of_peak": round(fraction, 3)})
        Console().print(f"{device} {precision} {preset} x {micro_batch}: {fraction:.1%} of the peak")
    return {
        "device": device,
        "precision": precision,
        "date": str(datetime.now(timezone.utc).date()),
        "machine": f"one thread of a machine with {os.cpu_count()} cores" if device == "cpu" else "one device",
        "points": points,
    }


def process_bytes() -> dict[str, float]:
    """Return what a CPU process holds beside its tensors, once it runs."""
    found = {}
    for key, strategy in (("zero0", "zero0"), ("zero1_to_3", "zero1"), ("zero1_to_3", "zero3")):
        [rank] = measure(config_of(("xtra pico", strategy, 1, "fp32", 1, 1, 0)))
        found[key] = max(found.get(key, 0.0), rank["bytes"])
        Console().print(f"{strategy}: {rank['bytes'] / 1e6:.0f} MB beside the tensors")
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=DEVICES, default=device_here(), help="what this machine's device is called")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--write", action="store_true", help="replace this device's entries of calibration.json")
    arguments = parser.parse_args()
    path = Path(str(resources.files("arvis_scale.planning"))) / "calibration.json"
    known = read_json(path, newest_schema=1)
    new = [speeds(arguments.device, precision) for precision in arguments.precisions]
    replaced = {(entry["device"], entry["precision"]) for entry in new}
    kept = [entry for entry in known["entries"] if (entry["device"], entry["precision"]) not in replaced]
    if arguments.device == "cpu":
        known["cpu_process_bytes"] = process_bytes()
    if arguments.write:
        write_json(path, {**known, "entries": [*kept, *new]})
        Console().print(f"written: {path}")


if __name__ == "__main__":
    main()
