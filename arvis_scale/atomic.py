"""Files that are written whole or not at all, and read back with their schema version checked.

Only the standard library and YAML: `scaling_studies` uses this module without any training package.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`.

    When the body raises, the temporary file is removed and an earlier `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # As readable as any new file, which mkstemp's are not: a run folder is shared with colleagues.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all; NaN and infinities are refused, as JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path | str, *, newest_schema: int | None) -> dict[str, Any]:
    """Read a JSON object that carries `schema_version`; None: one of others, which need not.

    Raises `ValueError` naming the file when it is not a JSON object, and when its schema is newer than this code knows.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); restore it or remove it") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not a JSON object; restore it or remove it")
    if newest_schema is not None:
        check_schema(path, value.get("schema_version"), newest_schema)
    return value


def check_schema(path: Path | str, version: Any, newest_schema: int) -> None:
    """Raise `ValueError` unless `version` is an integer from 1 to `newest_schema`."""
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"{path} has schema_version {version!r}; expected a whole number from 1 to {newest_schema}")
    if version > newest_schema:
        raise ValueError(
            f"{path} has schema_version {version}, this arvis_scale reads up to {newest_schema}; upgrade arvis_scale"
        )
