"""`sweep extend`: further values of a study's axes, written into its own copy of the study file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arvis_scale.config import parse_override


def extend_axes(values: dict[str, Any], additions: Sequence[str], path: Path) -> None:
    """Add to the axes of a study file's `values`: `KEY=[VALUE, ...]`, `KEY=VALUE` or `KEY+=VALUE` each add to one.

    Values that the axis has already stay as they are. Raises `ValueError` for a key that is no axis, and for an
    addition that adds nothing.
    """
    for addition in additions:
        key, given = parse_override(addition)
        key = key.removesuffix("+")
        section = next((name for name in ("axes", "tune") if key in (values.get(name) or {})), None)
        if section is None:
            axes = ", ".join(map(str, [*(values.get("axes") or {}), *(values.get("tune") or {})]))
            raise ValueError(f"{addition}: {key} is no axis of {path}, which has {axes or 'none'}; add it there first")
        before = values[section][key]
        wanted = given if isinstance(given, list) else [given]
        new = [value for value in wanted if not any(_is_equal(value, known) for known in before)]
        if not new:
            raise ValueError(f"{addition} adds nothing: {key} of {path} is {before} already")
        values[section] = {**values[section], key: [*before, *new]}


def _is_equal(value: Any, known: Any) -> bool:
    return type(value) is type(known) and bool(value == known)
