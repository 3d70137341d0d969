"""What a run watches itself for, and what it does then."""

from __future__ import annotations

from dataclasses import dataclass

from arvis_scale.config.hints import one_of

POLICIES = ("raise", "skip-batch", "rewind")


@dataclass
class GuardConfig:
    """Guards of a run. A step that one of them finds bad changes no weight, whatever its policy (docs/guards.md).

    Policies: `raise` ends the run; `skip-batch` leaves the step's update out and goes on; `rewind` goes back to the
    last checkpoint and on with the batches after the bad one.
    """

    # raise | skip-batch | rewind, for a step whose loss or global gradient norm is NaN or infinite.
    non_finite: str = "raise"
    # The same for a step whose loss, the mean over its global batch, lies far above the last ones; null: not checked.
    loss_spike: str | None = None
    # A spike is a loss above the median of the last `spike_window` steps by more than so many standard deviations,
    # estimated as 1.4826 times the median distance from that median. Judged once the window is full.
    spike_deviations: float = 10.0
    spike_window: int = 100
    # Bad steps that skip-batch and rewind forgive over the whole run; the next one ends it.
    max_incidents: int = 20
    # Minutes without progress (a step, a batch of validation, a checkpoint) after which a run that hangs is ended, with
    # the stacks of all processes in RUN/watchdog/; 0: never.
    watchdog_minutes: float = 20.0
    # Minutes after which the run saves itself and stops as preempted, so that it has ended by then. null: none but the
    # end of its Slurm job.
    time_limit_minutes: float | None = None

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        one_of("guards.non_finite", self.non_finite, POLICIES)
        if self.loss_spike is not None:
            one_of("guards.loss_spike", self.loss_spike, POLICIES)
        if self.spike_deviations <= 0:
            raise ValueError(f"guards.spike_deviations={self.spike_deviations} must be positive")
        if self.spike_window < 3:
            raise ValueError(f"guards.spike_window={self.spike_window} must be at least 3, or it has no spread")
        if self.max_incidents < 0 or self.watchdog_minutes < 0:
            raise ValueError(
                f"guards.max_incidents={self.max_incidents} and guards.watchdog_minutes={self.watchdog_minutes} "
                "must not be negative"
            )
        if self.time_limit_minutes is not None and self.time_limit_minutes <= 0:
            raise ValueError(f"guards.time_limit_minutes={self.time_limit_minutes} must be positive, or null for none")
