"""The folder beside the destination in which shards are built, so that a build can be killed and gone on with.

.DST.building/build.json       what is being built; another source or other options are refused
.DST.building/*.jsonl          what is done, line by line
.DST.building/shards/          becomes DST by one rename, when everything in it is finished
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

from arvis_scale.atomic import read_json, write_json

Value = TypeVar("Value")

_RECIPE_NAME = "build.json"
_SCHEMA_VERSION = 1
# A file system without locks (Lustre is often mounted so): two builds at once are then the user's to avoid.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class Staging:
    """Holds the folder against other processes, from `claim` to the end of the `with` statement."""

    def __init__(self, destination: Path, recipe: dict[str, Any]) -> None:
        """`recipe` is what determines the result, as JSON. Nothing is made on disk before `claim`."""
        self.destination = destination.resolve()
        self.folder = self.destination.with_name(f".{self.destination.name}.building")
        self.shards = self.folder / "shards"
        self._new_parents = [parent for parent in self.folder.parents if not parent.exists()]
        self._recipe = recipe
        self._lock: IO[bytes] | None = None
        self._compare(recipe)

    def claim(self, listing: str) -> None:
        """Make the folder, or take it over from an interrupted build of the same recipe and `listing` of the source.

        Raises `ValueError` when another process holds it, or when it holds the work of another build.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise ValueError(f"another process is building {self.destination}; wait for it") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        recipe = {**self._recipe, "listing": listing}
        self._compare(recipe)
        if not (self.folder / _RECIPE_NAME).exists():
            write_json(self.folder / _RECIPE_NAME, {"schema_version": _SCHEMA_VERSION, **recipe})
        self.shards.mkdir(exist_ok=True)

    def _compare(self, recipe: dict[str, Any]) -> None:
        path = self.folder / _RECIPE_NAME
        if not path.exists():
            return
        found = read_json(path, newest_schema=_SCHEMA_VERSION)
        for name, value in recipe.items():
            if found.get(name) != value:
                what = "files" if name == "listing" else f"{name} {found.get(name)!r}, not {value!r}"
                raise ValueError(
                    f"{self.destination} is half built from other {what}; build with the same again to go on, or "
                    f"remove {self.folder}"
                )

    def finish(self) -> None:
        """Let the finished shards appear as the destination, and remove the rest."""
        for folder in (self.shards, self.destination.parent):
            _sync_folder(folder)
        self.shards.replace(self.destination)
        _sync_folder(self.destination.parent)
        self.discard()

    def abandon(self) -> None:
        """Remove what a build left that never came to `claim`."""
        if not (self.folder / _RECIPE_NAME).exists():
            self.discard()

    def discard(self) -> None:
        """Remove all work; the next build begins anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for parent in self._new_parents:
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()


class Journal:
    """Lines of JSON, appended one after the other; what a kill left of a last line is cut off."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def read(self, convert: Callable[[Any], Value]) -> list[Value]:
        """Return what is written so far, up to the first damaged line, which is cut off with all that follows."""
        if not self._path.exists():
            return []
        values, whole = [], 0
        with self._path.open("rb") as file:
            for line in file:
                try:
                    value = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                values.append(convert(value))
        os.truncate(self._path, whole)
        return values

    def append(self, values: Iterable[Any]) -> None:
        """Write one line each and hand them to the operating system, so that they survive a kill."""
        if self._file is None:
            self._file = self._path.open("ab")
        self._file.write(b"".join(json.dumps(value).encode() + b"\n" for value in values))
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def remove_leftover(destination: Path) -> None:
    """Remove what a build left that was killed after its shards had appeared."""
    staging = Staging(destination, {})
    if not staging.shards.exists():
        staging.discard()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
