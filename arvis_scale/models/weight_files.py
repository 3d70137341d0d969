"""Files of weights, read without running code, and the check that weights fit a model tensor by tensor."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Where a training checkpoint keeps its weights: Lightning, DeepSpeed, and the MAE family that D-iGPT descends from.
_CONTAINERS = ("state_dict", "module", "model")
# What wrappers put in front of every name: Lightning and DDP; torch.compile puts its own anywhere.
_WRAPPERS = ("module.", "model.")
_COMPILED = "_orig_mod."
# What the readers raise: for a cut file, for bytes that are no pickle, for a trusted one whose modules are not here.
_UNREADABLE = (
    *(RuntimeError, EOFError, OSError, SafetensorError),
    *(LookupError, ValueError, TypeError),
    *(ImportError, AttributeError),
)


def read_weights(path: Path | str, *, trust_pickle: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file or torch checkpoint by name, on the CPU, wrappers' prefixes removed.

    A checkpoint is a dict of tensors, or holds one as `state_dict` (Lightning), `module` (DeepSpeed) or `model`. It
    is read with `weights_only`; one that needs more is refused, unless `trust_pickle` allows it to run its code.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights {path} do not exist, or are no file; name a file of weights")
    weights = _weights_in(_load(path, trust_pickle), path)
    return {_unwrapped(name): tensor for name, tensor in weights.items()}


def _load(path: Path, trust_pickle: bool) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Checkpoints of the MAE family hold their command line, which is plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError as error:
        if trust_pickle or "weights_only" not in str(error).lower():
            raise ValueError(f"{path} is no torch checkpoint: {_one_line(error)}") from error
        raise ValueError(
            f"{path} needs {_unsafe_names(path)} to load, which can run code of its author; "
            "if you trust the file, say --trust-pickle"
        ) from error
    except _UNREADABLE as error:
        raise ValueError(f"{path} does not load: {_one_line(error)}") from error


def _unsafe_names(path: Path) -> str:
    # Only torch's zip format says beforehand what it needs; the one before it does not.
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
    return ", ".join(sorted(names)[:3]) or "more than tensors"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _weights_in(loaded: Any, path: Path) -> Mapping[str, Tensor]:
    candidates = [loaded.get(key) for key in _CONTAINERS] if isinstance(loaded, Mapping) else []
    for candidate in (*candidates, loaded):
        if isinstance(candidate, Mapping) and candidate and all(isinstance(v, Tensor) for v in candidate.values()):
            return candidate
    raise ValueError(f"{path} holds no weights: expected tensors by name, or them under {', '.join(_CONTAINERS)}")


def _unwrapped(name: str) -> str:
    name = name.replace(_COMPILED, "")
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def check_fits(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: str, model: str) -> None:
    """Raise `ValueError` unless `weights` of `source` have the names and shapes of `expected`, the tensors of `model`.

    Names the first tensor, in the model's order, that has another shape, is missing, or is one too many.
    """
    for name, tensor in expected.items():
        if name in weights and weights[name].shape != tensor.shape:
            got, wanted = _shape_text(weights[name]), _shape_text(tensor)
            raise ValueError(f"{source} holds another architecture than {model}: {name} is {got}, the model's {wanted}")
    missing = [name for name in expected if name not in weights]
    if missing:
        raise ValueError(f"{source} lacks {_names(missing)} of {model}")
    unexpected = [name for name in weights if name not in expected]
    if unexpected:
        raise ValueError(f"{source} holds {_names(unexpected)}, which {model} has not")


def _shape_text(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a scalar"


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
