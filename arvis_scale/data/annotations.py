"""What a manifest or a WebDataset shard says about an image beside its bytes: split, label, caption, key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NO_LABEL = "has no label, in a split that has labels"
# A class number names a row of the classifier; a larger one is an identifier that should be given as a name.
MAX_CLASSES = 1_000_000


@dataclass(frozen=True, slots=True)
class Annotation:
    """`label` is a class name, or a class number as text; `key` is what the sample would like to be called."""

    split: str
    label: str | None
    caption: str | None
    key: str


def labelled_splits(labels: Iterable[tuple[str, str | None]]) -> set[str]:
    """Return the splits that have labels, out of (split, label) pairs; there an image without one is left out."""
    return {split for split, label in labels if label is not None}


def class_names(labels: Iterable[str | None]) -> list[str]:
    """Return the class names in the order of their numbers.

    Labels that are all whole numbers keep their numbers (`"0"` up to the largest); names are numbered in sorted order.
    """
    distinct = {label for label in labels if label is not None}
    if not distinct or not all(label.isascii() and label.isdigit() for label in distinct):
        return sorted(distinct)
    largest = max(int(label) for label in distinct)
    if largest >= MAX_CLASSES:
        raise ValueError(f"the label {largest} is no class number below {MAX_CLASSES:,}; give class names instead")
    return [str(number) for number in range(largest + 1)]


def normal_label(text: str) -> str:
    """Return the label as it stands in the list of classes: `"007"` is the class `"7"`."""
    text = text.strip()
    return str(int(text)) if text.isascii() and text.isdigit() else text
