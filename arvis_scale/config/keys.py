"""Dotted keys: `optimizer.learning_rate` for a value within a section."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, cast

# A section whose keys are DeepSpeed's and not ours: one value, whatever is in it.
FREE_FORM = "parallel.deepspeed"


def flat_keys(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested or dotted keys of a run's config as dotted ones, the last one given winning."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and dotted != FREE_FORM:
            flat.update(flat_keys(value, f"{dotted}."))
        else:
            flat[dotted] = value
    return flat


def leaves_of(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of a configuration dataclass by dotted key; they are its own, not copies."""
    leaves: dict[str, Any] = {}
    for name in _field_names(cast("Hashable", type(config))):
        value = getattr(config, name)
        if hasattr(value, "__dataclass_fields__"):
            leaves.update(leaves_of(value, f"{prefix}{name}."))
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


@cache
def _field_names(section: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(section))
