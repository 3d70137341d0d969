"""What a plan says: numbers alone, of one run and of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from arvis_scale.planning.timing import Speed
from arvis_scale.planning.zero_memory import Moment


@dataclass(frozen=True)
class StrategyPlan:
    """A run under one strategy."""

    strategy: str
    stages: int
    micro_batch_size: int
    # The moment of the largest stage when its memory is highest; None where the strategy is refused.
    peak: Moment | None
    # Largest micro batch, of those that divide a device's share of the global batch, that the device holds; 0: none.
    largest_micro_batch: int = 0
    # Why the strategy cannot train this run.
    refused: str = ""


@dataclass(frozen=True)
class Disk:
    """Bytes that a run's checkpoints take."""

    # One checkpoint, and what is left of it without the optimizer's moments.
    checkpoint: int
    without_moments: int
    # All that are kept when the run has ended, and its encoder.
    kept: int
    # Host memory of the fullest process while a checkpoint is written in the background.
    copy: float


@dataclass(frozen=True)
class RunPlan:
    """One run before it is started."""

    name: str
    objective: str
    preset: str
    precision: str
    strategy: str
    num_devices: int
    device: str
    device_bytes: float  # of its memory
    global_batch_size: int
    num_steps: int
    params_encoder: int
    params_total: int
    params_teacher: int
    # FLOPs of one image: forward and backward pass, and the teacher's forward pass.
    flops_per_image: float
    teacher_flops_per_image: float
    strategies: list[StrategyPlan]  # empty: planned without memory
    speed: Speed
    step_seconds: float | None  # None where the peak of the device is not known
    disk: Disk

    @property
    def chosen(self) -> StrategyPlan:
        """The plan under the run's own strategy."""
        return next(plan for plan in self.strategies if plan.strategy == self.strategy)

    @property
    def device_hours(self) -> float | None:
        """Hours of all devices together, without validation, probes and checkpoints."""
        return None if self.step_seconds is None else self.step_seconds * self.num_steps * self.num_devices / 3600


@dataclass(frozen=True)
class SweepPlan:
    """Many runs together."""

    runs: list[RunPlan]
    # Bytes on disk when all have ended, of the device that needs most (0 without memory), and hours of all devices.
    disk_bytes: float
    peak_bytes: float
    device_hours: float | None

    @classmethod
    def of(cls, runs: Sequence[RunPlan]) -> SweepPlan:
        """Add up `runs`."""
        hours = [run.device_hours for run in runs]
        peaks = [run.chosen.peak.total for run in runs if run.strategies and run.chosen.peak]
        known = [hour for hour in hours if hour is not None]
        return cls(
            runs=list(runs),
            disk_bytes=sum(run.disk.kept for run in runs),
            peak_bytes=max(peaks, default=0.0),
            device_hours=sum(known) if len(known) == len(hours) else None,
        )
