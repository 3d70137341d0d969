"""What an error about a value says: the values that are known, and the nearest one."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

PRECISIONS = ("fp32", "bf16")


def one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    """Raise `ValueError` unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{key}={value!r} is not known{suggestion(value, allowed)}; one of {', '.join(allowed)}")


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, or nothing when none is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
