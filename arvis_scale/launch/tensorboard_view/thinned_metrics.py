"""metrics.jsonl as it grows, thinned: of each stretch of steps the first line."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A curve of so many points is as wide as a screen shows; 250 runs of them are still light.
MAX_POINTS = 200
_STEP = re.compile(rb'\{"step": (\d+), ')


@dataclass
class ReadSoFar:
    """How far a file was read, so that the next look goes on from there."""

    offset: int = 0
    # The line before `offset`: where another one stands there now, a later start of the run has written the file anew.
    line: str = ""
    # The stretch that was last kept from, per kind of line.
    stretches: dict[str, int] = field(default_factory=dict)


def new_records(file: Path, so_far: ReadSoFar, num_steps: int) -> tuple[bool, list[dict[str, Any]]]:
    """Return the kept lines that were added since the last look, and whether they begin anew; `so_far` moves on.

    Lines with validation losses are kept apart from the others, so that both are thinned to `MAX_POINTS`; the run's
    last step is kept always. A last line that is still being written is left for the next look.
    """
    try:
        with open(file, "rb") as lines:
            before = so_far.line.encode()
            lines.seek(so_far.offset - len(before))
            is_anew = so_far.offset == 0 or lines.read(len(before)) != before
            if is_anew:
                so_far.offset, so_far.stretches = 0, {}
            lines.seek(so_far.offset)
            text = lines.read()
    except FileNotFoundError:
        return False, []
    whole = text[: text.rfind(b"\n") + 1].splitlines(keepends=True)
    if whole:
        so_far.offset += sum(map(len, whole))
        so_far.line = whole[-1].decode()
    return is_anew, [json.loads(line) for line in whole if _is_kept(line, so_far, num_steps)]


def _is_kept(line: bytes, so_far: ReadSoFar, num_steps: int) -> bool:
    found = _STEP.match(line)
    if found is None:
        return False
    step = int(found[1])
    kind = "validation" if b'"val_loss"' in line else "training"
    stretch = step * MAX_POINTS // max(num_steps, MAX_POINTS)
    if step < num_steps and so_far.stretches.get(kind) == stretch:
        return False
    so_far.stretches[kind] = stretch
    return True
