"""An objective cut into layers for pipeline parallelism (`deepspeed.pipe.PipelineModule`).

An objective names its computation as a list of `Step`s over named tensors. Each becomes one `PipelineLayer`, a map from
a tuple of tensors to a tuple of tensors. Which tensors travel from one to the next (a tapped layer, a target, a seed)
follows from what later steps still read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Step:
    """One float tensor of a computation, from those before it.

    `compute(objective, *tensors)` gets the tensors called `reads`, and the objective stripped of everything that lies
    under none of the dotted names in `parts`. A parameter belongs to one step. What `reads` names and no step
    `writes` is an entry of the batch. `width`, the last dimension of what is written, is needed where that travels
    beside another step's; all that travel together differ in that dimension alone.
    """

    writes: str
    reads: tuple[str, ...]
    parts: tuple[str, ...]
    compute: Callable[..., Tensor]
    width: int | None = None


@dataclass(frozen=True)
class Cargo:
    """The tensors that travel from one layer to the next.

    What steps wrote travels as one tensor, concatenated along the last dimension: DeepSpeed runs one backward pass for
    each float that leaves a stage, and ZeRO gets the gradients of parameters behind several of them wrong. Entries of
    the batch travel as integers, floats as their bits, so that no gradient is sent back for them.
    """

    written: tuple[str, ...]
    widths: tuple[int | None, ...]  # of the last dimension of each
    entries: tuple[str, ...]

    def pack(self, flow: Mapping[str, Tensor]) -> Tensor | tuple[Tensor, ...]:
        """Return the tensors to send, contiguous; one alone is no tuple."""
        written = [flow[name] for name in self.written]
        packed = [torch.cat(written, dim=-1)] if len(written) > 1 else [tensor.contiguous() for tensor in written]
        tensors = (*packed, *(flow[name] for name in self.entries))
        return tensors if len(tensors) > 1 else tensors[0]

    def unpack(self, sent: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Return by name what `pack` made tensors of."""
        tensors = [sent] if isinstance(sent, Tensor) else list(sent)
        written = [tensors.pop(0)] if self.written else []
        if len(self.written) > 1:
            written = list(written[0].split(self.widths, dim=-1))
        return dict(zip((*self.written, *self.entries), (*written, *tensors), strict=True))


class PipelineLayer(nn.Module):
    """One step, among the tensors that are on their way.

    Its parameters are the objective's own, named as there after `objective.`.
    """

    def __init__(
        self,
        objective: nn.Module,
        step: Step,
        *,
        arriving: Cargo,  # what it is given
        leaving: Cargo,  # what it returns
    ) -> None:
        super().__init__()
        self.objective = part_of(objective, step.parts)
        self.step = step
        self.arriving = arriving
        self.leaving = leaving
        self.train(objective.training)

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        """Map what arrives to what leaves."""
        flow = self.arriving.unpack(inputs)
        tensors = (_from_bits(flow[name]) for name in self.step.reads)
        flow[self.step.writes] = self.step.compute(self.objective, *tensors)
        return self.leaving.pack(flow)


def cut(objective: nn.Module, steps: Sequence[Step]) -> list[PipelineLayer]:
    """Return one layer per step; the last returns what the last step writes."""
    widths = {step.writes: step.width for step in steps}
    layers: list[PipelineLayer] = []
    leaving = Cargo((steps[-1].writes,), (None,), ())
    for step in reversed(steps):
        kept = [name for name in (*leaving.written, *leaving.entries) if name != step.writes]
        names = tuple(dict.fromkeys([*step.reads, *kept]))
        written = tuple(name for name in names if name in widths)
        entries = tuple(name for name in names if name not in widths)
        arriving = Cargo(written, tuple(widths[name] for name in written), entries)
        assert len(written) < 2 or None not in arriving.widths, f"{written} travel together, their widths must be known"
        layers.append(PipelineLayer(objective, step, arriving=arriving, leaving=leaving))
        leaving = arriving
    return layers[::-1]


def first_inputs(first: PipelineLayer, batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Return what the first layer reads of `batch`; missing `weights` are ones.

    Raises `ValueError` naming an entry that is missing.
    """
    given = {"weights": torch.ones(len(batch["images"]), device=batch["images"].device), **batch}
    for name in first.arriving.entries:
        if name not in given:
            raise ValueError(f"the pipeline reads batch[{name!r}]; the batch has {', '.join(batch)}")
    return tuple(_to_bits(given[name]) for name in first.arriving.entries)


def _to_bits(tensor: Tensor) -> Tensor:
    return tensor.float().contiguous().view(torch.int32) if tensor.is_floating_point() else tensor


def _from_bits(tensor: Tensor) -> Tensor:
    # Whole numbers of a batch are int64, so that int32 says float32.
    return tensor.view(torch.float32) if tensor.dtype == torch.int32 else tensor


def part_of(module: nn.Module, names: Sequence[str]) -> Any:
    """Return a copy of `module` that shares with it what lies under the dotted `names`.

    It holds no other parameter or buffer; of other submodules nothing but plain attributes is left.
    """
    kept: dict[str, list[str]] = {}
    for name in names:
        first, _, rest = name.partition(".")
        kept.setdefault(first, []).append(rest)
    members = {**module._parameters, **module._buffers, **module._modules}
    assert kept.keys() <= members.keys(), f"{type(module).__name__} has no {sorted(kept.keys() - members.keys())}"
    part = nn.Module.__new__(type(module) if names else nn.Module)
    # Hooks are kept in dictionaries, which the copy must not share. A method bound to `module`, such as a checkpointed
    # block's forward pass, would keep all of it in memory.
    part.__dict__ = {
        key: copy(value) if isinstance(value, dict) else value
        for key, value in vars(module).items()
        if getattr(value, "__self__", None) is not module
    }
    part._parameters = {name: value for name, value in module._parameters.items() if name in kept}
    part._buffers = {name: value for name, value in module._buffers.items() if name in kept}
    part._modules = {
        name: child if child is None or "" in kept.get(name, ()) else part_of(child, kept.get(name, ()))
        for name, child in (module._modules.items() if names else ())
    }
    return part


def block_steps(
    flow: str,
    blocks: str,
    num: int,
    *,
    width: int | None = None,
    arguments: Callable[..., tuple[Any, ...]],
    reads: tuple[str, ...] = (),
    parts: tuple[str, ...] = (),
) -> list[Step]:
    """Return a step per module of the list called `blocks`, from tensor `{flow}_0` to `{flow}_{num}`.

    `arguments(objective, layer, *tensors)` gives what module `layer` takes after its input, from the tensors called
    `reads` and the objective's `parts`.
    """

    def step(layer: int) -> Step:
        name = f"{blocks}.{layer}"

        def compute(objective: nn.Module, x: Tensor, *tensors: Tensor) -> Tensor:
            return objective.get_submodule(name)(x, *arguments(objective, layer, *tensors))

        return Step(f"{flow}_{layer + 1}", (f"{flow}_{layer}", *reads), (name, *parts), compute, width)

    return [step(layer) for layer in range(num)]
