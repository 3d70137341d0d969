"""Short runs share jobs, and jobs share GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from arvis_scale.launch.expansion import PlannedRun


def pack_jobs(runs: Sequence[PlannedRun], runs_per_job: int, *, num_slots: int) -> list[list[PlannedRun]]:
    """Group runs that need equally many processes into jobs of at most `runs_per_job`.

    Runs are dealt out by their number of samples and size of model, as cards are, so that jobs take about equally long;
    there are as many as fill the `num_slots` processes that run at once, so that no short rest runs alone at the end.
    The jobs with most processes come first.
    """
    jobs: list[list[PlannedRun]] = []
    for processes in sorted({run.config.parallel.processes for run in runs}, reverse=True):
        group = [run for run in runs if run.config.parallel.processes == processes]
        group.sort(key=_cost, reverse=True)
        at_once = max(1, num_slots // processes)
        num_jobs = -(-len(group) // (runs_per_job * at_once)) * at_once
        jobs.extend(group[start::num_jobs] for start in range(min(num_jobs, len(group))))
    return jobs


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
