"""What a run asks of the cluster: keys `resources.*` of a study file, which are no part of a run's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from arvis_scale.config import suggestion

PREFIX = "resources."


@dataclass(frozen=True)
class Resources:
    """What one run asks for beside its devices; None: what the cluster's profile says."""

    # Time limit of its job, in hours.
    hours: float | None = None
    # Host memory per node, in GB (1e9 bytes).
    memory_gb: float | None = None
    cpus_per_process: int | None = None
    partition: str | None = None
    # As `sbatch --constraint` takes it.
    constraint: str | None = None


_TYPES = {"hours": float, "memory_gb": float, "cpus_per_process": int, "partition": str, "constraint": str}
assert set(_TYPES) == {field.name for field in fields(Resources)}
RESOURCE_KEYS = tuple(PREFIX + name for name in _TYPES)


def resources_of(keys: Mapping[str, Any], source: str) -> Resources:
    """Return the resources that the dotted `keys` of a run ask for; `ValueError` names `source` and the key."""
    given = {key.removeprefix(PREFIX): value for key, value in keys.items() if key.startswith(PREFIX)}
    for name, value in given.items():
        if name not in _TYPES:
            raise ValueError(f"{source}: unknown key {PREFIX + name!r}{suggestion(PREFIX + name, RESOURCE_KEYS)}")
        if value is not None:
            given[name] = _typed(name, value, source)
    return Resources(**given)


def _typed(name: str, value: Any, source: str) -> float | int | str:
    kind = _TYPES[name]
    if kind is str:
        if not isinstance(value, str) or not value:
            raise ValueError(f"{source}: {PREFIX}{name}={value!r} must be a name")
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or value <= 0 or value != kind(value):
        wanted = "a whole number above 0" if kind is int else "a number above 0"
        raise ValueError(f"{source}: {PREFIX}{name}={value!r} must be {wanted}")
    return kind(value)
