"""The processes of a run: their group, their device, and what they agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from arvis_scale.engine.addresses import LOOPBACK, bound_to
from arvis_scale.engine.parallel.deepspeed_here import init_distributed
from arvis_scale.engine.ports import free_port

# What every process comes to soon after the others: who waits longer gives up.
_CONTROL_TIMEOUT = timedelta(minutes=30)
# For work that one process does alone: longer than any job runs. One that dies is noticed at once all the same.
_WORK_TIMEOUT = timedelta(days=30)


@dataclass(frozen=True)
class Processes:
    """The process group as one process sees it."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device
    # Flags and counts travel here, on CPU, so that asking never waits for the device.
    control: dist.ProcessGroup

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is set on any process; every process must call it at the same point."""
        if self.world_size == 1:
            return flag
        value = torch.tensor([int(flag)])
        dist.all_reduce(value, op=dist.ReduceOp.MAX, group=self.control)
        return bool(value.item())

    def sum(self, values: list[float]) -> list[float]:
        """Return the element-wise sums of `values` over the processes."""
        total = torch.tensor(values, dtype=torch.float64)
        if self.world_size > 1:
            dist.all_reduce(total, group=self.control)
        return total.tolist()

    def gather(self, value: float) -> list[float]:
        """Return every process's `value`, in the order of their ranks, on every process."""
        return self.sum([value if rank == self.rank else 0.0 for rank in range(self.world_size)])

    def tell_all(self, value: Any) -> Any:
        """Return the first process's `value` on every process."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values, src=0, group=self.control)
        return values[0]

    def barrier(self) -> None:
        """Wait for every process."""
        if self.world_size > 1:
            dist.barrier(group=self.control)

    @contextmanager
    def waiting_for_first(self) -> Iterator[None]:
        """Context at whose end every process waits for the first one, however long its body takes there.

        When the first process dies in it, the others raise `RuntimeError`: its connections close.
        """
        if self.world_size == 1:
            yield
            return
        group = _new_group(_WORK_TIMEOUT)
        yield
        dist.barrier(group=group)
        dist.destroy_process_group(group)


def join_processes() -> Processes:
    """Join the group named by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; without them this process is alone.

    A second call in the same process joins the group that is already there, so that several short runs share one start.
    """
    if not dist.is_initialized():
        _default_environment()
        backend = "nccl" if _select_device().type == "cuda" else "gloo"
        init_distributed(dist_backend=backend, verbose=False)
    return Processes(
        rank=dist.get_rank(),
        local_rank=int(os.environ["LOCAL_RANK"]),
        world_size=dist.get_world_size(),
        device=_select_device(),
        control=_control_group(),
    )


_control: dist.ProcessGroup | None = None


def _control_group() -> dist.ProcessGroup:
    global _control
    if _control is None:
        _control = _new_group(_CONTROL_TIMEOUT)
    return _control


def _new_group(timeout: timedelta) -> dist.ProcessGroup:
    """Return a group of all processes for flags and counts; each of them must ask for it."""
    group = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(group, dist.ProcessGroup), "this process belongs to the group of all"
    return group


def _default_environment() -> None:
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": LOOPBACK}
    if "RANK" not in os.environ:
        os.environ.update({**bound_to(LOOPBACK), **os.environ, **alone})
        os.environ["MASTER_PORT"] = str(free_port())
    os.environ.setdefault("LOCAL_RANK", "0")


def _select_device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local_rank, num_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local_rank >= num_gpus:
        raise ValueError(
            f"process {local_rank} of this machine has no GPU, there are {num_gpus}; lower parallel.processes"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
