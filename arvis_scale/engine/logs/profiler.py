"""A trace of a few steps, on demand: what processor and GPU did when, of each process."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from torch.profiler import ProfilerAction, profile

from arvis_scale.atomic import whole_file
from arvis_scale.config import ProfileConfig


class StepProfiler:
    """Context in which the steps that `config` names are traced; the others run as without it.

    A trace is written after its last step, or when the run ends before that. The step before its first is traced too
    and thrown away, as the tracer itself takes time to start; a run that begins with the first one has no such step.
    """

    def __init__(self, config: ProfileConfig, folder: Path, *, rank: int, step: int) -> None:
        """Trace into `folder`, in a run of which `step` steps are done."""
        self._folder = folder
        self._rank = rank
        self._done = step
        self._last = config.start + config.steps - 1
        self._first = max(config.start, step + 1)
        self._starts_before = max(self._first - 1, step + 1)  # the step thrown away, where there is one
        self._profile: profile | None = None

    def __enter__(self) -> StepProfiler:
        self._start_if_due()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def step(self) -> None:
        """Say that a step is done; to be called outside of what is timed, as a trace may be written here."""
        self._done += 1
        if self._profile is not None:
            self._profile.step()
            if self._done >= self._last:
                self._stop()
        else:
            self._start_if_due()

    def _start_if_due(self) -> None:
        if self._done + 1 == self._starts_before and self._first <= self._last:
            self._profile = profile(schedule=self._action, on_trace_ready=self._write)
            self._profile.step_num = self._done  # its marks carry the run's own numbers
            self._profile.start()
            self._profile.step()

    def _stop(self) -> None:
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _action(self, step: int) -> ProfilerAction:
        """Return what the tracer does in step number `step` of the run."""
        if not self._starts_before <= step <= self._last:
            return ProfilerAction.NONE
        if step < self._first:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD if step < self._last else ProfilerAction.RECORD_AND_SAVE

    def _write(self, traced: profile) -> None:
        if self._done < self._first:
            return  # the run ended right before
        path = self._folder / f"rank_{self._rank:05d}.step_{self._first:08d}.pt.trace.json.gz"
        with whole_file(path) as temporary, tempfile.TemporaryDirectory() as scratch:
            plain = Path(scratch) / "trace.json"
            traced.export_chrome_trace(str(plain))
            with open(plain, "rb") as source, gzip.open(temporary, "wb", compresslevel=4) as packed:
                shutil.copyfileobj(source, packed)
