"""Files of a checkpoint written behind the train loop's back.

DeepSpeed's own engines for this are not used: its `fast` writer compiles a C++ op and the `decoupled` one waits for the
files at the next optimizer step; neither hashes or flushes what it writes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch

from arvis_scale.engine.checkpointing.manifest import FileEntry
from arvis_scale.engine.parallel.deepspeed_here import TorchCheckpointEngine


class PostponedFiles(TorchCheckpointEngine):
    """Takes DeepSpeed's files instead of writing them.

    With `copies`, tensors are copied to host memory, so that training may change them before they are written.
    """

    def __init__(self, *, copies: bool) -> None:
        super().__init__()
        self._copies = copies
        self._files: dict[Path, Any] = {}

    def save(self, state_dict: Any, path: str | Path) -> None:
        """Remember one file."""
        self._files[Path(path)] = copy_to_host(state_dict) if self._copies else state_dict

    def preserves_storage_sharing(self) -> bool:
        """Return whether a view would drag the whole tensor behind it into the file; DeepSpeed then copies it."""
        return not self._copies

    def take(self) -> dict[Path, Any]:
        """Return the files remembered since the last call, by path."""
        files, self._files = self._files, {}
        return files


def copy_to_host(value: Any) -> Any:
    """Return `value` with every tensor in it copied to host memory, a view without what lies behind it.

    DeepSpeed's `clone_tensors_for_torch_save` turns a `torch.Size` into a tuple, which its `zero_to_fp32` cannot read.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    if type(value) in (list, tuple):
        return type(value)(copy_to_host(item) for item in value)
    if isinstance(value, dict):
        return type(value)((key, copy_to_host(item)) for key, item in value.items())
    return value


def write_files(files: dict[Path, Any], root: Path) -> dict[str, FileEntry]:
    """Write and flush `files`, emptying the dict as it goes; return what they are by path inside `root`."""
    entries = {}
    while files:
        path, value = files.popitem()
        entries[str(path.relative_to(root))] = write_tensors(value, path)
    return entries


def write_tensors(value: Any, path: Path) -> FileEntry:
    """`torch.save` to `path`, flushed to the disk; return its size and its hash, taken on the way."""
    with open(path, "wb") as file:
        hashed = _Hashed(file)
        torch.save(value, hashed)  # type: ignore[arg-type]  # it only writes
        file.flush()
        os.fsync(file.fileno())
    return FileEntry(hashed.num_bytes, hashed.digest.hexdigest())


class _Hashed:
    """A file that is only appended to."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.num_bytes = 0
        self.digest = hashlib.sha256()

    def write(self, piece: Any) -> int:
        self.digest.update(piece)
        written = self._file.write(piece)
        self.num_bytes += written
        return written

    def flush(self) -> None:
        self._file.flush()
