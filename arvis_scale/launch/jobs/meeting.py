"""How the tasks of one job agree: the first writes an order to a file beside the job's logs, the others wait for it.

An order says which runs to train now, and where their processes meet; one without runs is the end of the job.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import submitit

from arvis_scale.atomic import read_json, write_json
from arvis_scale.engine import batch_job
from arvis_scale.engine.addresses import LOOPBACK, address_of, bound_to, own_address_towards

SCHEMA_VERSION = 1
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Order:
    """What the first task tells the others to do."""

    # (kind, folder) of the runs, one after the other; empty: nothing more.
    runs: list[tuple[str, str]]
    # The number of the start that this is of each run (`Status.attempt`).
    attempts: list[int]
    # Where the processes meet.
    address: str
    port: int
    # When Slurm ends the job, in seconds since the epoch; None: nobody said.
    job_ends_at: float | None


class Task:
    """One task of a job, as submitit's environment describes it."""

    def __init__(self) -> None:
        job = submitit.JobEnvironment()
        self.rank, self.num_tasks = job.global_rank, job.num_tasks
        self.local_rank, self.num_local = job.local_rank, max(1, job.num_tasks // job.num_nodes)
        self.is_slurm = job.cluster == "slurm"
        # As Slurm names them.
        self.nodes = list(job.hostnames)
        self._files = _orders_folder(job) if self.num_tasks > 1 else None

    @property
    def is_first(self) -> bool:
        """Whether this task gives the orders."""
        return self.rank == 0

    def own_address(self) -> str:
        """Return the address at which the job's other nodes reach this one; the loopback's where there are none.

        Towards another node, as many systems name the loopback when they are asked for their own name.
        """
        others = [node for node in self.nodes if node != batch_job.node_name()] if len(self.nodes) > 1 else []
        return own_address_towards(address_of(others[0])) if others else LOOPBACK

    def give(self, number: int, order: Order) -> None:
        """Give order `number` to every other task."""
        if self._files is not None:
            write_json(self._files / f"{number}.json", {"schema_version": SCHEMA_VERSION, **asdict(order)})

    def has(self, number: int) -> bool:
        """Return whether order `number` has been given."""
        return self._files is not None and (self._files / f"{number}.json").is_file()

    def wait_for(self, number: int) -> Order:
        """Return order `number`, once the first task has given it."""
        assert self._files is not None, "a job of several tasks"
        while not self.has(number):
            time.sleep(POLL_SECONDS)
        values = read_json(self._files / f"{number}.json", newest_schema=SCHEMA_VERSION)
        runs = [(kind, folder) for kind, folder in values["runs"]]
        return Order(runs, values["attempts"], values["address"], values["port"], values["job_ends_at"])

    def report(self, number: int) -> None:
        """Tell the first task that this one has ended its process of order `number`."""
        if self._files is not None:
            (self._files / f"{number}_ended_{self.rank}").touch()

    def wait_for_all(self, number: int, seconds: float) -> None:
        """Wait until every task has ended its process of order `number`, or for so many seconds."""
        deadline = time.monotonic() + seconds
        while self._files is not None and time.monotonic() < deadline:
            if len(list(self._files.glob(f"{number}_ended_*"))) == self.num_tasks:
                return
            time.sleep(POLL_SECONDS)

    def environment(self, order: Order, given: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return the environment of a process that trains: `given`, with what torch, DeepSpeed and WebDataset read.

        gloo and NCCL are kept to the interface that reaches the job's nodes, where `given` does not name another.
        """
        ends = {} if order.job_ends_at is None else {"SLURM_JOB_END_TIME": str(int(order.job_ends_at))}
        return {
            **ends,
            **bound_to(self.own_address()),
            **given,
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.num_tasks),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.num_local),
            "MASTER_ADDR": order.address,
            "MASTER_PORT": str(order.port),
        }


def _orders_folder(job: submitit.JobEnvironment) -> Path:
    # A number is not enough: Slurm starts a job again under the same, and on one machine it is that of a process.
    is_slurm = job.cluster == "slurm"
    start = batch_job.restart() if is_slurm else int(psutil.Process(os.getppid()).create_time())
    return Path(job.paths.folder) / "orders" / f"{job.job_id}_{start}"
