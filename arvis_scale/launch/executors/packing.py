"""Short runs share jobs, and jobs share GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from arvis_scale.launch.studies.expansion import PlannedRun


def pack_jobs(runs: Sequence[PlannedRun], runs_per_job: int, *, num_slots: int) -> list[list[PlannedRun]]:
    """Group runs that need the same processes and resources into jobs of at most `runs_per_job`.

    Runs are dealt out by their number of samples and size of model, as cards are, so that jobs take about equally long;
    there are as many as fill the `num_slots` processes that run at once, so that no short rest runs alone at the end.
    The jobs with most processes come first, but for those of runs that come `after` others: no run shares a job with
    one that it waits for, nor comes before it.
    """
    depths = _depths(runs)
    groups: dict[tuple[object, ...], list[PlannedRun]] = {}
    for run in runs:
        key = (depths[run.config.name], -run.config.parallel.processes, run.resources)
        groups.setdefault(key, []).append(run)
    jobs: list[list[PlannedRun]] = []
    for (_, fewer, _), group in sorted(groups.items(), key=lambda item: item[0][:2]):
        assert isinstance(fewer, int), "the negative number of processes"
        group.sort(key=_cost, reverse=True)
        at_once = max(1, num_slots // -fewer)
        num_jobs = -(-len(group) // (runs_per_job * at_once)) * at_once
        jobs.extend(group[start::num_jobs] for start in range(min(num_jobs, len(group))))
    return jobs


def _depths(runs: Sequence[PlannedRun]) -> dict[str, int]:
    """Return how many of `runs` come before each, one after the other; those that are not among them have completed."""
    by_name = {run.config.name: run for run in runs}
    depths: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in depths:
            before = [depth(other) for other in by_name[name].after if other in by_name]
            depths[name] = 1 + max(before, default=-1)
        return depths[name]

    for name in by_name:
        depth(name)
    return depths


def _cost(run: PlannedRun) -> tuple[float, int]:
    from arvis_scale.models.presets import encoder_size

    size = encoder_size(run.config.preset)
    return float(run.config.samples_seen) * size.width**2 * size.depth, size.width


def choose_gpus(gpus: Sequence[str], taken: Iterable[Sequence[str]], num_processes: int) -> list[str]:
    """Return `num_processes` different `gpus`, those that the fewest jobs have `taken`; none where there are none.

    More processes at once than GPUs share them between jobs, as small runs leave most of a GPU idle; the processes of
    one job never do, which NCCL refuses. Raises `ValueError` when there are fewer GPUs than processes.
    """
    if not gpus:
        return []
    if num_processes > len(gpus):
        raise ValueError(f"{num_processes} processes need as many GPUs; this machine has {len(gpus)}")
    num_jobs = Counter(gpu for job in taken for gpu in job)
    return sorted(gpus, key=lambda gpu: num_jobs[gpu])[:num_processes]
