"""Rules of a study: keys that a run gets because other keys of it have certain values.

A rule for several keys together names them, and their values, with commas: `method, preset` and `XTRA-k2, nano`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Rules = Mapping[str, Mapping[Any, Mapping[str, Any]]]


def ruled_keys(rules: Rules, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that the rules give to a run whose config, without them, is `values` (dotted keys)."""
    ruled: dict[str, Any] = {}
    for key, by_value in rules.items():
        found = values_of(key, values)
        for value, keys in by_value.items():
            if _is_met(value, found):
                ruled.update(keys)
    return ruled


def keys_of(rule: str) -> list[str]:
    """Return the keys that the values of a rule are of."""
    return [key.strip() for key in rule.split(",")]


def values_of(rule: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a run with `values` has for the keys of a rule."""
    return tuple(values.get(key) for key in keys_of(rule))


def check_rules_occur(rules: Rules, found: Mapping[str, Collection[tuple[Any, ...]]], path: Path) -> None:
    """Raise `ValueError` for a rule about a value that no run has; `found` holds what runs have for the rule's keys."""
    for key, by_value in rules.items():
        for value in by_value:
            if not any(_is_met(value, other) for other in found[key]):
                between = "; " if "," in key else ", "
                names = between.join(sorted(", ".join(map(str, other)) for other in found[key]))
                raise ValueError(
                    f"{path}: rules.{key}.{value} is for no run: {key} is {names} in this study (what rules give does "
                    "not count)"
                )


def _is_met(rule: Any, found: tuple[Any, ...]) -> bool:
    parts = [rule] if len(found) == 1 else [part.strip() for part in str(rule).split(",")]
    return len(parts) == len(found) and all(map(is_same, parts, found))


def is_same(rule: Any, value: Any) -> bool:
    """Return whether a value in a study file means the `value` of a run.

    They are compared as strings and as the values that YAML reads from them: 1000 is "1000", 1e-3 is 0.001.
    """
    if str(rule) == str(value):
        return True
    rule, value = _read(rule), _read(value)
    return isinstance(rule, bool) == isinstance(value, bool) and bool(rule == value)


def _read(value: Any) -> Any:
    return _read_text(value) if isinstance(value, str) else value


@cache
def _read_text(text: str) -> Any:
    value: Any = text
    try:
        value = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    try:
        return float(value) if isinstance(value, str) else value  # 1e-3, which YAML 1.1 takes for a string
    except ValueError:
        return value
