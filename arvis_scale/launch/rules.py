"""Rules of a study: keys that a run gets because another key of it has a certain value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from arvis_scale.config import suggestion
from arvis_scale.launch.study_file import default_keys

Rules = Mapping[str, Mapping[Any, Mapping[str, Any]]]


def ruled_keys(rules: Rules, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that the rules give to a run whose config, without them, is `values` (dotted keys)."""
    ruled: dict[str, Any] = {}
    for key, by_value in rules.items():
        for value, keys in by_value.items():
            if _same(value, values.get(key)):
                ruled.update(keys)
    return ruled


def check_rule_keys(rules: Rules, path: Path) -> None:
    """Raise `ValueError` for a rule about a key that no run has."""
    known = list(default_keys())
    for key in rules:
        if key not in known:
            raise ValueError(f"{path}: rules: unknown key {key!r}{suggestion(key, known)}")


def check_rules_occur(rules: Rules, runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Raise `ValueError` for a rule about a value that none of the runs (their configs, dotted keys) has."""
    for key, by_value in rules.items():
        for value in by_value:
            if not any(_same(value, run.get(key)) for run in runs):
                found = ", ".join(sorted({str(run.get(key)) for run in runs}))
                raise ValueError(f"{path}: rules.{key}.{value} is for no run: {key} is {found} in this study")


def _same(rule: Any, value: Any) -> bool:
    """Compare as strings and as the values that YAML reads from them: 1000 is "1000", 1e-3 is 0.001."""
    if str(rule) == str(value):
        return True
    rule, value = _read(rule), _read(value)
    return isinstance(rule, bool) == isinstance(value, bool) and bool(rule == value)


def _read(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        value = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    try:
        return float(value) if isinstance(value, str) else value  # 1e-3, which YAML 1.1 takes for a string
    except ValueError:
        return value
