"""From the axes and points of a study to its runs, each with a readable name and a validated config."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arvis_scale.config import RunConfig, build_config
from arvis_scale.launch.rules import check_rule_keys, check_rules_occur, ruled_keys
from arvis_scale.launch.study_file import StudyConfig, default_keys, flat_keys


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study."""

    # "train" (the untrained reference is a run of no steps) or "raw_pixels".
    kind: str
    config: RunConfig


def expand(study: StudyConfig, base: Mapping[str, Any], folder: Path, path: Path) -> list[PlannedRun]:
    """Return the runs of the study at `path`, in its order, their folders below `folder`.

    A run's keys are the base's, then `set`, then what the rules give for these and the point's values, then the point's
    own: the last word wins. Raises `ValueError` naming the file and the key.
    """
    points = [*_grid(study.axes), *study.points]
    if not points:
        raise ValueError(f"{path}: axes and points are both empty; there is nothing to run")
    check_rule_keys(study.rules, path)
    before_rules = {**default_keys(), **flat_keys(base), **study.set}
    runs = []
    for point in points:
        keys = {**study.set, **ruled_keys(study.rules, {**before_rules, **point}), **point}
        name = _run_name({**before_rules, **keys}, point)
        placed = {**keys, "name": name, "output": str(folder / "runs" / name)}
        runs.append(PlannedRun("train", build_config(base, placed, f"{path}, run {name}")))
    check_rules_occur(study.rules, [{**before_rules, **point} for point in points], path)
    return runs


def _grid(axes: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())] if axes else []


_NAMED = ("objective", "preset", "unique_images", "samples_seen", "seed")
# How a run is spread changes none of its numbers, so it is not in its name either.
_UNNAMED = ("micro_batch_size", "parallel.", "checkpoints.", "log.", "data.num_workers")


def _run_name(keys: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    """Return e.g. `xtra-micro-u250-n20000-s0`; the point's other keys follow as `-key_value`."""
    named = {key: keys[key] for key in _NAMED}
    return joined_name({**named, **{key: value for key, value in point.items() if not key.startswith(_UNNAMED)}})


def joined_name(keys: Mapping[str, Any], *prefix: str) -> str:
    """Return the parts of `prefix` and of the dotted `keys` as one folder name: `-u250`, `-s0`, `-block_side_2`."""
    parts = [*prefix, *(_part(key, value) for key, value in keys.items())]
    return "-".join(parts).replace("/", "_").replace(" ", "")


def _part(key: str, value: Any) -> str:
    if key in ("objective", "preset"):
        return str(value)
    if key == "unique_images":
        return "uall" if value is None else f"u{value}"
    if key in ("samples_seen", "seed"):
        return f"{key[0] if key == 'seed' else 'n'}{value}"
    return f"{key.rsplit('.', 1)[-1]}_{value}"
