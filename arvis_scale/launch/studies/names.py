"""Names of runs: readable, the same whatever else the study holds, different for different runs, and safe.

They are folders and parts of Slurm's job names, so that letters, digits and `. _ + -` are all that they have.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

# Keys that every name has; others follow as `-key_value`.
NAMED = ("objective", "preset", "unique_images", "samples_seen", "seed")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
# Of a value and of a whole name, in characters; file systems take 255.
_LONGEST_VALUE, _LONGEST_NAME = 40, 200


def joined_name(keys: Mapping[str, Any], *prefix: str) -> str:
    """Return the parts of `prefix` and of the dotted `keys` as one name: `-u250`, `-s0`, `-block_side_2`."""
    name = "-".join([*map(_safe, prefix), *(_part(key, value) for key, value in keys.items())])
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 9]}-{_hash(name)}"


def _part(key: str, value: Any) -> str:
    if key in ("objective", "preset"):
        return _safe(str(value))
    if key == "unique_images":
        return "uall" if value is None else f"u{value}"
    if key in ("samples_seen", "seed"):
        return f"{key[0] if key == 'seed' else 'n'}{value}"
    # The last word of the key, whatever other sections have it too: names outlive the keys that come and go.
    return f"{key.rpartition('.')[2]}_{_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(_value, value)) if value else "none"
    return _safe(str(value))


def _safe(text: str) -> str:
    """Return `text` as it is where it is safe, else what is readable of it (of a path the end) and a hash of it all."""
    readable = text.rstrip("/").rpartition("/")[2][-_LONGEST_VALUE:]
    safe = _UNSAFE.sub("_", readable)
    return safe if safe == text and text else f"{safe}.{_hash(text)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
