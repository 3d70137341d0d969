"""The `exclude` entries of a study: runs that its axes would give and that are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arvis_scale.launch.studies.rules import is_same


class Exclusion:
    """Leaves out the runs that have all values of one entry, of a list any; refuses entries that cannot be meant so."""

    def __init__(self, entries: Sequence[Mapping[str, Any]], path: Path) -> None:
        for number, entry in enumerate(entries):
            for key, given in entry.items():
                if given == []:
                    raise ValueError(f"{path}: exclude[{number}].{key} is an empty list; name values in it")
        self._entries = entries
        self._path = path
        self._matched = [False] * len(entries)

    def leaves_out(self, values: Mapping[str, Any], point: int | None) -> bool:
        """Return whether a run with these `values` (dotted keys) is left out.

        Raises `ValueError` when the run is entry `point` of `points`, which asks for it by itself.
        """
        matching = [number for number, entry in enumerate(self._entries) if _matches(entry, values)]
        for number in matching:
            self._matched[number] = True
        if matching and point is not None:
            first = matching[0]
            entry = dict(self._entries[first])
            raise ValueError(f"{self._path}: points[{point}] is left out by exclude[{first}], {entry}; remove one")
        return bool(matching)

    def check_all_matched(self, num_left: int) -> None:
        """Raise `ValueError` for an entry that matched no run, and when none of the runs is left."""
        for number, entry in enumerate(self._entries):
            if not self._matched[number]:
                raise ValueError(
                    f"{self._path}: exclude[{number}] leaves out nothing, no run has {dict(entry)}; change or remove it"
                )
        if not num_left:
            raise ValueError(f"{self._path}: exclude leaves nothing to run; remove one of its entries")


def _matches(entry: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    return all(_is_met(given, values.get(key)) for key, given in entry.items())


def _is_met(given: Any, value: Any) -> bool:
    """Return whether `given` means `value`; a list of values for a key that holds no list means any of them."""
    if isinstance(given, list) and not isinstance(value, list):
        return any(is_same(option, value) for option in given)
    return is_same(given, value)
