"""Rules of a study: keys that a run gets because another key of it has a certain value."""

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
        for value, keys in by_value.items():
            if is_same(value, values.get(key)):
                ruled.update(keys)
    return ruled


def check_rules_occur(rules: Rules, found: Mapping[str, Collection[Any]], path: Path) -> None:
    """Raise `ValueError` for a rule about a value that no run has; `found` holds the values of each key of a rule."""
    for key, by_value in rules.items():
        for value in by_value:
            if not any(is_same(value, other) for other in found[key]):
                names = ", ".join(sorted(map(str, found[key])))
                raise ValueError(f"{path}: rules.{key}.{value} is for no run: {key} is {names} in this study")


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
