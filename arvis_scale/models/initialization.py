"""Initial weights: functions for `module.apply(...)`, and `gpt2`, which needs to see the whole model.

Each of the former touches only the parameters that the given module itself holds, so that DeepSpeed's partitioned
construction can gather them module by module.
"""

from __future__ import annotations

import math

from torch import nn
from torch.nn import init

# Parameters that a module holds directly beside its layers: positions and learned tokens.
_TOKEN_NAMES = ("pos_embed", "cls_token", "query_token", "mask_token", "start_token")


def _init_tokens(module: nn.Module) -> None:
    for name, parameter in module.named_parameters(recurse=False):
        if name in _TOKEN_NAMES:
            init.trunc_normal_(parameter, std=0.02)


def truncated_normal(module: nn.Module) -> None:
    """XTRA's initialisation (arXiv 2411.15648): truncated normal std 0.02, zero biases, Kaiming-normal convolution."""
    _init_tokens(module)
    if isinstance(module, nn.Linear):
        init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        init.kaiming_normal_(module.weight)
    if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
        init.zeros_(module.bias)


def xavier_uniform(module: nn.Module) -> None:
    """D-iGPT's initialisation (arXiv 2312.02147): Xavier uniform, zero biases, tokens normal std 0.02.

    The patch convolution counts as the linear map that it is, as in MAE.
    """
    _init_tokens(module)
    if isinstance(module, nn.Linear):
        init.xavier_uniform_(module.weight)
    elif isinstance(module, nn.Conv2d):
        init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1))
    if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
        init.zeros_(module.bias)


def gpt2(model: nn.Module, depth: int) -> None:
    """Initialize a decoder of `depth` layers as GPT-2 (Radford et al. 2019, section 2.3): normal std 0.02, zero biases.

    Weights that write to the residual stream are smaller by the square root of its 2 * depth branches.
    """
    for name, module in model.named_modules():
        _init_tokens(module)
        if isinstance(module, (nn.Linear, nn.Embedding)):
            is_residual = name.endswith(("attn.proj", "mlp.fc2"))
            init.normal_(module.weight, std=0.02 / math.sqrt(2 * depth) if is_residual else 0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            init.zeros_(module.bias)
