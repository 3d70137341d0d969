"""The memory that one forward and backward pass holds, moment by moment, found by running it without data.

torch's fake tensors carry shapes, types and storages but no numbers, so that every tensor that the real pass would hold
is created and dropped in the same order, whatever the model and its activation checkpointing do, and nothing is
computed. CPU attention kernels are asked for: like those of a GPU they keep queries, keys, values, output and a
log-sum-exp, not the matrix of all pairs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from arvis_scale.models.objective import Objective
from arvis_scale.models.pipeline import first_inputs

# A smaller tensor is counted as a whole number of these bytes: the unit of torch's GPU allocator.
_ALLOCATION_BYTES = 512

Build = Callable[[], Objective]
Shapes = Callable[[], dict[str, Tensor]]


@dataclass(frozen=True)
class Course:
    """Memory during a forward and a backward pass, at each moment when something was created, and at the end of each.

    Parameters are not counted, and a parameter's gradient only until it is finished.
    """

    # Bytes of everything that lives: activations, the batch, temporary results.
    live_bytes: np.ndarray  # M
    # Elements of parameters whose gradient is finished.
    finished_grads: np.ndarray  # M
    # Moment at which the forward pass has ended.
    forward_end: int

    def with_kept(self, num_others: int) -> Course:
        """Return the course while `num_others` more micro batches wait between their forward and backward pass."""
        kept = self.live_bytes[self.forward_end - 1] * num_others
        return replace(self, live_bytes=self.live_bytes + kept)


@dataclass(frozen=True)
class Courses:
    """The courses of every micro batch size: a straight line at each moment, through those of two sizes."""

    small: Course
    large: Course
    sizes: tuple[int, int]

    def at(self, micro_batch_size: int) -> Course:
        """Return the course with `micro_batch_size` images."""
        assert len(self.small.live_bytes) == len(self.large.live_bytes), "the same is computed whatever the batch size"
        small, large = self.sizes
        slope = (self.large.live_bytes - self.small.live_bytes) / (large - small)
        return replace(self.small, live_bytes=self.small.live_bytes + slope * (micro_batch_size - small))


class _LiveStorages(TorchDispatchMode):
    """Adds up the storages that are alive, and writes the sum down whenever one is created."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.finished_grads = 0
        self.moments: list[tuple[int, int]] = [(0, 0)]
        self._known: dict[int, weakref.ref[Any]] = {}

    def ignore(self, module: nn.Module) -> None:
        """Leave the parameters and buffers of `module` out."""
        for tensor in (*module.parameters(), *module.buffers()):
            self._remember(tensor, 0)

    def count(self, tensor: Tensor) -> None:
        """Count a tensor's storage while it lives, once."""
        size = tensor.untyped_storage().nbytes()
        self._remember(tensor, -(-size // _ALLOCATION_BYTES) * _ALLOCATION_BYTES)

    def _remember(self, tensor: Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return

        def forget(_: object) -> None:
            self.bytes -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, forget)
        self.bytes += size
        if size:
            self.moments.append((self.bytes, self.finished_grads))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self.count(value)
        return result


def course_of(build: Build, shapes: Shapes, dtype: torch.dtype) -> Course:
    """Return the course of one training pass of the objective that `build` makes, its parameters cast to `dtype`.

    `shapes` makes its batch. Both are called where tensors take no memory.
    """
    model = _without_memory(build, dtype)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        return _record(model, shapes(), lambda batch: model(batch)[0])


def stage_courses(build: Build, shapes: Shapes, bounds: Sequence[int], dtype: torch.dtype) -> list[Course]:
    """Return the courses of the stages that the objective's pipeline layers are cut into at `bounds`."""
    model = _without_memory(build, dtype)
    courses = []
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        layers = model.pipeline_layers()
        sent: Any = first_inputs(layers[0], shapes())
        for start, stop in pairwise(bounds):
            stage = nn.Sequential(*layers[start:stop])
            courses.append(_record(stage, _received(sent), stage))
            with torch.no_grad():
                sent = stage(sent)
    return courses


def _without_memory(build: Build, dtype: torch.dtype) -> Objective:
    with torch.device("meta"):
        model = build().train()
    for parameter in model.parameters():  # buffers keep their type, as under DeepSpeed
        parameter.data = parameter.data.to(dtype)
    return model


def _received(sent: Any) -> Any:
    """Return what a stage gets: tensors of its own, of which those with a gradient send it back."""
    if isinstance(sent, Tensor):
        return torch.empty_like(sent).requires_grad_(sent.is_floating_point())
    return tuple(_received(tensor) for tensor in sent)


def _record(model: nn.Module, inputs: Any, run: Callable[[Any], Any]) -> Course:
    live = _LiveStorages()
    live.ignore(model)

    def finish(parameter: Tensor) -> None:
        live.finished_grads += parameter.numel()
        parameter.grad = None
        live.moments.append((live.bytes, live.finished_grads))

    hooks = [
        parameter.register_post_accumulate_grad_hook(finish)
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    with live:
        for value in tree_iter(inputs):
            live.count(value)
        outputs = [value for value in tree_iter(run(inputs)) if value.requires_grad]
        live.moments.append((live.bytes, live.finished_grads))
        forward_end = len(live.moments)
        torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
        live.moments.append((live.bytes, live.finished_grads))
    for hook in hooks:
        hook.remove()
    live_bytes, finished = np.array(live.moments, dtype=np.int64).T
    return Course(live_bytes.astype(float), finished, forward_end)
