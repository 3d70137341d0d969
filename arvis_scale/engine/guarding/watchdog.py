"""A thread that ends a run which makes no progress, after writing where every process hangs.

Each process watches itself: while one hangs, the others hang too, in the next collective that waits for it. What they
write to RUN/watchdog/ tells which one is behind: it did the fewest steps, or could not even write.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from arvis_scale.atomic import whole_file
from arvis_scale.engine.exit_status import HANGING
from arvis_scale.engine.heartbeat import write_unless_failed
from arvis_scale.engine.run_folder import RunFolder, Status

Item = TypeVar("Item")

# How often a process looks at its own progress and for the report of another, which it answers with its own; and how
# long it waits for the others' before it takes them for dead.
_CHECKS_PER_TIMEOUT = 10
_MOST_SECONDS_BETWEEN_CHECKS = 5.0
_GATHER_SECONDS = 20.0


@dataclass(frozen=True)
class Report:
    """The first line of a process's file: how far it came. Ordered as (step, part of the step) is."""

    rank: int
    step: int
    # How often it had begun to wait for data or to compute within the step; 0 where processes do so unequally often.
    part: int
    phase: str
    host: str

    def line(self) -> str:
        """Return the report as one line, which `read_report` reads back."""
        return f"rank {self.rank} step {self.step} part {self.part} host {self.host} phase {self.phase}"


def read_report(path: Path) -> Report | None:
    """Read the first line of a process's file; None where there is none."""
    if not path.is_file():
        return None
    words = path.read_text(encoding="utf-8").split("\n", 1)[0].split(" ", 9)
    return Report(int(words[1]), int(words[3]), int(words[5]), words[9], words[7])


class Watchdog:
    """Context in which a process that makes no progress for `minutes` (0: never) is ended with the status `HANGING`."""

    def __init__(
        self,
        folder: RunFolder,
        status: Status,
        *,
        rank: int,
        world_size: int,
        minutes: float,
        is_symmetric: bool = True,
    ) -> None:
        """`is_symmetric` says whether all processes report the same parts of a step, as those of a pipeline do not."""
        self._run_folder = folder
        # Of this attempt alone: an earlier one's reports would be taken for alarms.
        self._folder = folder.watchdog / f"attempt_{status.attempt:04d}"
        self._status = status
        self._rank = rank
        self._world_size = world_size
        self._timeout = minutes * 60.0
        self._is_symmetric = is_symmetric
        self._step, self._part, self._phase = status.step, 0, "start"
        self._last = time.monotonic()
        self._ended = threading.Event()
        self._alarm = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._last = time.monotonic()
        if self._timeout > 0:
            threading.Thread(target=self._listen, name="watchdog-listener", daemon=True).start()
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Watch no longer."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def progress(self, step: int, phase: str) -> None:
        """Note that the process begins `phase` after `step` optimizer steps."""
        if step != self._step:
            self._part = 0
        self._step, self._phase = step, phase
        self._part += self._is_symmetric
        self._last = time.monotonic()

    def over(self, items: Iterable[Item], step: int, phase: str) -> Iterator[Item]:
        """Yield `items`, each of them progress."""
        for item in items:
            self.progress(step, phase)
            yield item

    def _watch(self) -> None:
        """Look at the clock, and never at a disk, which may be what hangs."""
        while not self._ended.wait(self._interval):
            if time.monotonic() - self._last > self._timeout or self._alarm.is_set():
                self._bark()

    def _listen(self) -> None:
        while not self._ended.wait(self._interval):
            if self._folder.is_dir():
                self._alarm.set()
                return

    @property
    def _interval(self) -> float:
        return min(self._timeout / _CHECKS_PER_TIMEOUT, _MOST_SECONDS_BETWEEN_CHECKS)

    def _bark(self) -> None:
        """Report and end this process: its main thread may never return."""
        report = threading.Thread(target=self._report, name="watchdog-report", daemon=True)
        report.start()
        report.join(2 * _GATHER_SECONDS)
        if report.is_alive():
            print(f"error: no progress, and {self._folder} cannot be written; stacks:", file=sys.stderr, flush=True)
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
        os._exit(HANGING)  # the group's other members hang: nothing that a clean end would wait for can happen

    def _report(self) -> None:
        """Write this process's stacks, and name the one that is behind."""
        self._write_stacks()
        minutes = self._timeout / 60.0
        reason = f"no progress for {minutes:.3g} minutes; {self._who_is_behind()}; stacks in {self._folder}"
        self._status.state, self._status.reason, self._status.exit_status = "failed", reason, HANGING
        write_unless_failed(self._run_folder, self._status)
        if self._rank == 0:
            print(f"error: {reason}", file=sys.stderr, flush=True)

    def _write_stacks(self) -> None:
        report = Report(self._rank, self._step, self._part, self._phase, socket.gethostname())
        with whole_file(self._file(self._rank)) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(f"{report.line()}\n\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)

    def _who_is_behind(self) -> str:
        """Return a sentence on the process that the others wait for, from what all have written."""
        ranks = range(self._world_size)
        deadline = time.monotonic() + _GATHER_SECONDS
        while not all(self._file(rank).is_file() for rank in ranks) and time.monotonic() < deadline:
            time.sleep(0.1)
        return name_the_last([read_report(self._file(rank)) for rank in ranks])

    def _file(self, rank: int) -> Path:
        return self._folder / f"rank_{rank:05d}.txt"


def name_the_last(reports: list[Report | None]) -> str:
    """Return which process is behind, from each rank's report; None is a process that could not write one."""
    silent = [rank for rank, report in enumerate(reports) if report is None]
    if silent:
        return f"{_ranks(silent)} did not answer: stopped or dead"
    present = [report for report in reports if report is not None]
    first = min(report.step for report in present)
    last = [report for report in present if report.step == first]
    # Who waits for its own data waits for no other process.
    last = [report for report in last if report.phase == "data"] or last
    least = min(report.part for report in last)
    last = [report for report in last if report.part == least]
    if len(last) == len(reports) and len(reports) > 1:
        return f"all {len(reports)} processes are at step {first} ({last[0].phase})"
    hosts = ", ".join(sorted({report.host for report in last}))
    return f"{_ranks([report.rank for report in last])} on {hosts} is behind, at step {first} ({last[0].phase})"


def _ranks(ranks: list[int]) -> str:
    return f"rank {', '.join(map(str, ranks))}"
