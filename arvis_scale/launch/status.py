"""The state of a study's runs, read from their folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from arvis_scale.atomic import read_json
from arvis_scale.engine.run_folder import RunFolder, Status

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RunState:
    """One line of `sweep status`."""

    name: str
    status: Status
    # Linear-probe accuracy, where there is one.
    accuracy: float | None


def study_states(study_folder: Path) -> list[RunState]:
    """Return the runs of a study in the order of its file; `ValueError` when the folder holds no study."""
    file = study_folder / "sweep.json"
    if not file.is_file():
        raise ValueError(
            f"{study_folder} is not a study folder: {file.name} is missing (run `arvis-scale sweep submit`)"
        )
    sweep = read_json(file, newest_schema=SCHEMA_VERSION)
    return [_state(study_folder / "runs" / run["name"]) for run in sweep["runs"]]


def _state(path: Path) -> RunState:
    folder = RunFolder(path)
    status = folder.status()
    if status.state == "running" and not status.is_alive:
        status.state, status.reason = "lost", "no heartbeat; submit the study again to go on from its checkpoint"
    accuracy = None
    if status.state == "completed":
        accuracy = folder.read_result()["probes"].get("linear", {}).get("accuracy")
    return RunState(path.name, status, accuracy)
