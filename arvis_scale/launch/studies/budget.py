"""What a study will cost, as `plan` predicts it, and whether that is within its budget."""

from __future__ import annotations

from dataclasses import dataclass

from arvis_scale.launch.executors.profiles import load_profile
from arvis_scale.launch.studies.expansion import PlannedRun
from arvis_scale.launch.studies.study import Study


@dataclass(frozen=True)
class RunCost:
    """One run; a branch counts from the step that it takes over from its parent."""

    run: PlannedRun
    params: int
    # FLOPs of all its own training steps, a teacher's included.
    flops: float
    # Hours of all its devices; None where the peak of the device is not known.
    device_hours: float | None
    # Bytes that its folder keeps.
    disk_bytes: float

    @property
    def num_devices(self) -> int:
        """Devices that it takes at once."""
        return self.run.config.parallel.processes


@dataclass(frozen=True)
class StudyCost:
    """All runs of a study that train, and their sums."""

    runs: tuple[RunCost, ...]
    # Kind of device that the hours are for (`planning.devices`).
    device: str

    @property
    def device_hours(self) -> float | None:
        """Hours of all devices of all runs, finished ones too; None where those of a run are not known."""
        hours = [cost.device_hours for cost in self.runs if cost.device_hours is not None]
        return sum(hours) if len(hours) == len(self.runs) else None

    @property
    def flops(self) -> float:
        """FLOPs of all runs."""
        return sum(cost.flops for cost in self.runs)

    @property
    def disk_bytes(self) -> float:
        """Bytes that all run folders keep."""
        return sum(cost.disk_bytes for cost in self.runs)


def study_cost(study: Study, device: str | None = None) -> StudyCost:
    """Return what the study's runs cost on `device`, by default the one of its cluster's profile, or this machine's.

    Models, batches and spreads that are alike are planned once. Probes, validation and checkpoints are not counted.
    """
    from arvis_scale.engine.run_plan import plan_runs  # brings torch
    from arvis_scale.planning.devices import device_here

    if device is None and study.launch.executor == "slurm" and study.launch.cluster is not None:
        device = load_profile(study.launch.cluster).device
    device = device or device_here()
    runs = [run for run in study.runs if run.kind == "train"]
    plans = plan_runs([run.config for run in runs], device, with_memory=False).runs
    costs = []
    for run, plan in zip(runs, plans, strict=True):
        steps = plan.num_steps - run.first_step
        flops = (plan.flops_per_image + plan.teacher_flops_per_image) * plan.global_batch_size * steps
        hours = None if plan.step_seconds is None else plan.step_seconds * steps * plan.num_devices / 3600
        costs.append(RunCost(run, plan.params_total, flops, hours, plan.disk.kept))
    return StudyCost(tuple(costs), device)


def predicted_hours(study: Study) -> float | None:
    """Return the device hours predicted for a study with a budget; None for one without.

    Raises `ValueError` when they exceed it.
    """
    if study.budget.device_hours is None:
        return None
    cost = study_cost(study)
    check_budget(study, cost)
    return cost.device_hours


def check_budget(study: Study, cost: StudyCost) -> None:
    """Raise `ValueError` when the study's `cost` exceeds its `budget.device_hours`, or cannot be told."""
    budget, hours = study.budget.device_hours, cost.device_hours
    if budget is None:
        return
    if hours is None:
        raise ValueError(
            f"budget.device_hours={budget:g} cannot be held: the speed of {cost.device} is not known; "
            "name a --device that `plan` knows, or leave the budget out"
        )
    if hours > budget:
        raise ValueError(
            f"study {study.name}: {hours:,.4g} device hours of {cost.device} are predicted for {len(cost.runs)} runs, "
            f"more than budget.device_hours={budget:g}; leave runs out, or raise it"
        )
