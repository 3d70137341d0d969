"""A signal sets a flag; the train loop reads it at a step boundary, where all processes can save together.

A collective save inside a signal handler would hang: the processes are at different points when it arrives.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class PreemptionFlag:
    """Context in which SIGTERM, SIGUSR1 and SIGUSR2 only set `raised_by`; the earlier handlers return at its end."""

    def __init__(self) -> None:
        self.raised_by: str | None = None
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
