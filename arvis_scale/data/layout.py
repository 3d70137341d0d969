"""Split, class and key of an image: as a manifest or a shard annotates it, else as its path inside the source tells.

The rules for paths, in order:

1. Folders that everything else lies in (`cifar10/train/cat/1.jpg`) are wrapping and fall away, until a split is met.
2. When every top folder is called `train`, `val` or `test`, those are the splits; else all images are `train`.
3. A split is labelled when each of its images lies in exactly one folder, its class (`cat/1.jpg`); a split with any
   other shape (flat, deeper, mixed) is unlabelled as a whole.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from arvis_scale.data.annotations import Annotation

SPLITS = ("train", "val", "test")

# With its extension a key must fit the 100 bytes of a USTAR member name.
MAX_KEY_LENGTH = 90


@dataclass(frozen=True, slots=True)
class Place:
    """Split and class of one image; `class_name` is None in an unlabelled split."""

    split: str
    class_name: str | None
    key: str


def assign_places(paths: Sequence[str]) -> list[Place]:
    """The place of every path, by the rules above; keys are unique and webdataset-safe.

    Raises `ValueError` when split folders stand beside other folders that cannot be classes.
    """
    parts = _without_wrapping([tuple(path.split("/")) for path in paths])
    if _top_is_splits(parts):
        splits = [path[0] for path in parts]
        parts = [path[1:] for path in parts]
    else:
        splits = ["train"] * len(parts)
    unlabelled = {split for split, path in zip(splits, parts, strict=True) if len(path) != 2}
    names = ["/".join((split, *path)) for split, path in zip(splits, parts, strict=True)]
    keys = _unique_keys(names, names)
    return [
        Place(split, None if split in unlabelled else path[0], key)
        for split, path, key in zip(splits, parts, keys, strict=True)
    ]


def annotated_places(annotations: Sequence[Annotation], paths: Sequence[str]) -> list[Place]:
    """The place of every annotated image; a key that another has too is told apart by the image's path."""
    keys = _unique_keys([annotation.key for annotation in annotations], paths)
    return [Place(annotation.split, annotation.label, key) for annotation, key in zip(annotations, keys, strict=True)]


def _without_wrapping(parts: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Drop the shared top folder while only folders lie directly in it and it is not a split."""
    while parts and len({path[0] for path in parts}) == 1:
        if parts[0][0] in SPLITS or min(len(path) for path in parts) < 3:
            break
        parts = [path[1:] for path in parts]
    return parts


def _top_is_splits(parts: list[tuple[str, ...]]) -> bool:
    tops = {path[0] if len(path) > 1 else "" for path in parts}
    if tops <= set(SPLITS):
        return True
    # `train` beside `bus` may be a class of vehicles, but not when it holds folders itself.
    split_with_folders = {path[0] for path in parts if path[0] in SPLITS and len(path) > 2}
    if split_with_folders:
        others = sorted(top or "images outside any folder" for top in tops - set(SPLITS))
        raise ValueError(
            f"the split {min(split_with_folders)!r} stands beside {others[0]!r}, which is none of "
            f"{', '.join(SPLITS)}; move it away or build from {min(split_with_folders)!r} alone"
        )
    return False


def _unique_keys(names: Sequence[str], paths: Sequence[str]) -> list[str]:
    """ASCII keys without dots (webdataset cuts a name at its first dot); clashing and long ones end in a path hash."""
    keys = [re.sub(r"[^A-Za-z0-9_-]+", "_", re.sub(r"\.[^./]*$", "", name)) for name in names]
    uses = Counter(keys)
    for number, key in enumerate(keys):
        if uses[key] > 1 or len(key) > MAX_KEY_LENGTH:
            digest = hashlib.sha256(paths[number].encode()).hexdigest()[:16]
            keys[number] = f"{key[: MAX_KEY_LENGTH - 17]}-{digest}"
    assert len(set(keys)) == len(keys), "two paths with one 64-bit hash"
    return keys
