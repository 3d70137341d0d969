"""A signal or the clock sets a flag; the train loop reads it at a step boundary, where all processes can save together.

A collective save inside a signal handler would hang: the processes are at different points when it arrives.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

# What a save and a step may take longer than the last ones did, and what ends the process after the save.
_SLOWER = 2.0
_SPARE_SECONDS = 10.0


class PreemptionFlag:
    """Context in which SIGTERM, SIGUSR1 and SIGUSR2 only set `raised_by`; the earlier handlers return at its end."""

    def __init__(self, limit: TimeLimit | None = None) -> None:
        self.raised_by: str | None = None
        self._limit = limit
        self._earlier: dict[signal.Signals, object] = {}

    def __enter__(self) -> PreemptionFlag:
        for number in SIGNALS:
            self._earlier[number] = signal.signal(number, self._raise)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.raised_by = signal.Signals(number).name

    def look_at_clock(self, *, step_seconds: float, save_seconds: float) -> None:
        """Raise the flag where the time limit is near, for a run whose last step and save took so long."""
        is_near = self._limit is not None and self._limit.is_near(step_seconds=step_seconds, save_seconds=save_seconds)
        if is_near and self.raised_by is None:
            self.raised_by = "time limit"


class TimeLimit:
    """The moment by which a run must have ended: so many minutes from now, or its Slurm job's end if that is first."""

    def __init__(self, minutes: float | None, environment: Mapping[str, str] = os.environ) -> None:
        """`minutes` is None for no limit of the run's own. Slurm gives its job's end in SLURM_JOB_END_TIME."""
        ends = [time.time() + 60.0 * minutes] if minutes is not None else []
        if "SLURM_JOB_END_TIME" in environment:
            ends.append(float(environment["SLURM_JOB_END_TIME"]))
        self._end = min(ends, default=float("inf"))

    def is_near(self, *, step_seconds: float, save_seconds: float) -> bool:
        """Return whether the run must save now, lest another step and the save after it end too late."""
        margin = _SLOWER * (step_seconds + save_seconds) + _SPARE_SECONDS
        return time.time() + margin > self._end
