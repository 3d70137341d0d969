"""A bounded set of open file descriptors for positioned reads and writes."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path


class OpenFiles:
    """Keeps the descriptors of the most recently used files open, at most `limit` of them.

    Positioned reads (`os.pread`) share no file offset, so descriptors inherited over a fork are safe to use;
    a pickled copy starts with none. Not for several threads at once: one may evict what another is reading.
    """

    def __init__(self, flags: int, limit: int) -> None:
        self._flags = flags
        self._limit = limit
        self._descriptors: OrderedDict[Path, int] = OrderedDict()

    def descriptor(self, path: Path) -> int:
        """The open descriptor of `path`; raises `OSError` when it cannot be opened."""
        descriptor = self._descriptors.get(path)
        if descriptor is None:
            descriptor = os.open(path, self._flags | os.O_CLOEXEC)
            self._descriptors[path] = descriptor
            if len(self._descriptors) > self._limit:
                os.close(self._descriptors.popitem(last=False)[1])
        else:
            self._descriptors.move_to_end(path)
        return descriptor

    def forget(self, path: Path) -> None:
        """Close `path`, where it is open, so that its next use opens it again."""
        descriptor = self._descriptors.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def __reduce__(self) -> tuple[type[OpenFiles], tuple[int, int]]:
        return OpenFiles, (self._flags, self._limit)

    def __del__(self) -> None:
        self.close()
