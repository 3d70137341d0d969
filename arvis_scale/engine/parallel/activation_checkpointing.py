"""Activation checkpointing: transformer blocks whose activations are computed again in the backward pass.

It lowers what a block keeps between forward and backward pass to its input, at the cost of a second forward pass
(arXiv 1604.06174).
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

_BLOCKS = "blocks"


def checkpoint_blocks(objective: nn.Module, every: int) -> None:
    """Let the first, the `every + 1`-st, ... block of each stack of `objective` keep no activations; 0: none.

    A stack is a list of blocks called `blocks`, of the encoder or a decoder. Losses, gradients, names and state dicts
    stay as they are. Layers that `objective.pipeline_layers()` cuts afterwards share the blocks.
    """
    if every == 0:
        return
    stacks = [module for name, module in objective.named_modules() if name.rpartition(".")[2] == _BLOCKS]
    assert stacks, f"{type(objective).__name__} has no list of blocks"
    for stack in stacks:
        assert isinstance(stack, nn.ModuleList)
        for block in list(stack)[::every]:
            # On the instance and not around it: a wrapping module would change the names of its parameters.
            block.forward = MethodType(_checkpointed_forward, block)


def _checkpointed_forward(block: nn.Module, *arguments: Any) -> Any:
    # Whatever a block draws is a function of the batch (`models.draws`): there is no generator's state to restore.
    return checkpoint(type(block).forward, block, *arguments, use_reentrant=False, preserve_rng_state=False)
