"""Writes the view of a sweep and keeps it up: each look takes over what the runs have written since the last one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from arvis_scale.atomic import write_json
from arvis_scale.config import load_yaml
from arvis_scale.engine.logs.metric_names import probe_names, scalar_names
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.locks import held
from arvis_scale.launch.studies.study_file import flat_keys
from arvis_scale.launch.sweep_file import SweepRun, read_sweep
from arvis_scale.launch.tensorboard_view.hparams import Columns, experiment, hparam_columns, session_end, session_start
from arvis_scale.launch.tensorboard_view.thinned_metrics import ReadSoFar, new_records

SCHEMA_VERSION = 1
Progress = Callable[[int, int], None]


@dataclass
class _Shown:
    """What the view already has of a run."""

    metrics: ReadSoFar = field(default_factory=ReadSoFar)
    # Step of its last point, and the seconds of training until there.
    step: int = 0
    seconds: float = 0.0
    # Date of the result.json whose probes are shown; 0: none.
    result_ns: int = 0
    # Whether it is a line of HPARAMS.
    is_line: bool = False


class SweepView:
    """The folder STUDY/tensorboard; one process at a time keeps it up, others only look at it."""

    def __init__(self, study_folder: Path) -> None:
        """Raises `ValueError` when `study_folder` holds no study."""
        read_sweep(study_folder)
        self._study = study_folder
        self._root = study_folder / "tensorboard"
        self.scalars, self.images = self._root / "scalars", self._root / "images"
        self._index = self._root / "view.json"
        self._open = ExitStack()
        self.is_mine = self._open.enter_context(held(self._root / ".lock"))
        self._columns, self._shown = self._read_index()
        self._configs: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> SweepView:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def update(self, progress: Progress = lambda done, total: None) -> None:
        """Take over what is new; `progress` is told how many runs of how many are done."""
        if not self.is_mine:
            return
        runs = [
            run for run in read_sweep(self._study).runs if (self._study / "runs" / run.name / "config.yaml").exists()
        ]
        configs = {run.name: self._config(run) for run in runs}
        columns = hparam_columns([config for name, config in configs.items() if _is_compared(config)])
        if columns != self._columns:  # every line has them, so all begin anew
            shutil.rmtree(self.scalars, ignore_errors=True)
            self._columns, self._shown = columns, {}
            _write(self.scalars, [Event(summary=experiment(columns))])
        for number, run in enumerate(runs):
            self._update_run(run, configs[run.name])
            progress(number + 1, len(runs))
        self._write_index()

    def _config(self, run: SweepRun) -> dict[str, Any]:
        """Return a run's configuration as it is shown: the number of its images is known when it has trained on all."""
        folder = RunFolder(self._study / "runs" / run.name)
        config = self._configs.get(run.name)
        if config is None:
            config = self._configs[run.name] = flat_keys(load_yaml(folder.config))
            if run.kind == "raw_pixels":
                config.update(objective="raw_pixels", preset="none")
        if config["unique_images"] is None and folder.result.exists():
            config["unique_images"] = folder.read_result()["unique_images"]
        return config

    def _update_run(self, run: SweepRun, config: Mapping[str, Any]) -> None:
        folder = RunFolder(self._study / "runs" / run.name)
        group = Path(str(config["objective"]), str(config["preset"]), run.name)
        shown = self._shown.setdefault(run.name, _Shown())
        num_steps = config["samples_seen"] // config["global_batch_size"]
        events = self._curve_events(folder, shown, num_steps) + self._result_events(folder, shown)
        if _is_compared(config) and config["unique_images"] is not None and not shown.is_line:
            events.insert(0, Event(summary=session_start(config, self._columns, run.name)))
            shown.is_line = True
        _write(self.scalars / group, events)
        _link(self.images / group, folder.tensorboard_images)

    def _curve_events(self, folder: RunFolder, shown: _Shown, num_steps: int) -> list[Event]:
        is_anew, records = new_records(folder.metrics, shown.metrics, num_steps)
        if is_anew:
            shown.step, shown.seconds = 0, 0.0
        began = folder.config.stat().st_mtime
        events = []
        for record in records:
            step = record.pop("step")
            # Nobody noted when; how long training took until there is known.
            shown.seconds += (step - shown.step) * (record.get("seconds_per_step") or 0.0)
            shown.step = max(step, shown.step)
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalar_names(record).items()]
            events.append(Event(step=step, wall_time=began + shown.seconds, summary=Summary(value=values)))
        if events:
            # What was shown of this step and later steps is of an earlier start of the run.
            mark = SessionLog(status=SessionLog.START)
            events.insert(0, Event(step=0 if is_anew else events[0].step, wall_time=began, session_log=mark))
        return events

    def _result_events(self, folder: RunFolder, shown: _Shown) -> list[Event]:
        try:
            written_ns = folder.result.stat().st_mtime_ns
        except FileNotFoundError:
            return []
        if written_ns == shown.result_ns:
            return []
        shown.result_ns = written_ns
        found = probe_names(folder.read_result()["probes"])
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in found.items()]
        at = folder.config.stat().st_mtime + shown.seconds
        return [Event(step=shown.step, wall_time=at, summary=Summary(value=values)), Event(summary=session_end())]

    def _read_index(self) -> tuple[Columns, dict[str, _Shown]]:
        """Return what the view has; nothing where that is not known, so that it is written anew."""
        try:
            index = json.loads(self._index.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}, {}
        if index["schema_version"] != SCHEMA_VERSION or not self.scalars.exists():
            return {}, {}
        shown = {
            name: _Shown(**{**entry, "metrics": ReadSoFar(**entry["metrics"])}) for name, entry in index["runs"].items()
        }
        return index["columns"], shown

    def _write_index(self) -> None:
        runs = {name: asdict(shown) for name, shown in self._shown.items()}
        write_json(self._index, {"schema_version": SCHEMA_VERSION, "columns": self._columns, "runs": runs})


def _is_compared(config: Mapping[str, Any]) -> bool:
    """Return whether a run is a line of HPARAMS: what was never trained has no place on the axes there."""
    return bool(config["samples_seen"]) and config["objective"] != "raw_pixels"


def _write(folder: Path, events: list[Event]) -> None:
    if not events:
        return
    writer = EventFileWriter(str(folder))
    for event in events:
        writer.add_event(event)
    writer.close()


def _link(link: Path, target: Path) -> None:
    if target.is_dir() and not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent))
