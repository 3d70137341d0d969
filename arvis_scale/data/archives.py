"""Image archives (`.zip`, `.tar`, compressed `.tar`) as lists of members that can be read in any order.

Nothing is unpacked to files of its own, so a member's name is only ever a label.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from arvis_scale.atomic import whole_file
from arvis_scale.data.strict_tar import StrictTarInfo

_UNPACKERS: dict[bytes, Callable[[IO[bytes]], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
_PIECE_BYTES = 1 << 20

# A member: its name, its size in bytes, and how to get its bytes (raises `OSError`).
Member = tuple[str, int, Callable[[], bytes]]


def tar_members(path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar that is not compressed; raises `ValueError` when it breaks off before its end."""
    num_members = 0
    try:
        with tarfile.open(path, "r:", tarinfo=StrictTarInfo) as archive:
            for member in archive:
                num_members += 1
                archive.members = []  # type: ignore[attr-defined]  # tarfile would keep every member to the end
                yield member
    except (tarfile.TarError, OSError) as error:
        if num_members == 0:
            raise ValueError(f"{path} is neither a folder nor a zip or tar archive ({error})") from error
        raise ValueError(f"{path} breaks off after {num_members} members ({error}); fetch it again") from error


def read_span(path: str, offset: int, size: int) -> bytes:
    """Return `size` bytes of a file from `offset`; raises `OSError` when there are fewer."""
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        data = file.read(size)
        while len(data) < size and (piece := file.read(size - len(data))):
            data += piece
    if len(data) != size:
        raise OSError(f"{len(data)} of {size} bytes")
    return data


def tar_files(path: Path) -> Iterator[Member]:
    """Yield what is no folder in a plain tar; reading a link or a sparse member raises `OSError`."""
    for member in tar_members(path):
        if member.isdir():
            continue
        whole = member.isreg() and not member.issparse()
        read = partial(read_span, str(path), member.offset_data, member.size) if whole else _link
        yield member.name, member.size, read


def _link() -> bytes:
    raise OSError("a link inside an archive; pack it with its links followed (tar --dereference --hard-dereference)")


def zip_files(path: Path) -> Iterator[Member]:
    """Yield the files of a zip archive."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path} cannot be read as a zip archive ({error}); fetch or pack it again") from error

    def read(member: zipfile.ZipInfo) -> bytes:
        try:
            return archive.read(member)
        except (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error) as error:  # damaged, encrypted, unknown method
            raise OSError(str(error)) from error

    for member in archive.infolist():
        if not member.is_dir():
            # Some Windows tools write backslashes.
            yield member.filename.replace("\\", "/"), member.file_size, partial(read, member)


def unpacked_tar(path: Path, folder: Path, progress: Callable[[int, int], None]) -> Path:
    """Return a plain tar of the same content: `path` itself, or its decompressed copy in `folder`, made once.

    Members of a compressed tar can be read only one after the other; shards need them shuffled. `progress` gets the
    compressed bytes done and their total. Raises `ValueError` when the compressed data is damaged.
    """
    with path.open("rb") as file:
        head = file.read(6)
        unpacker = next((make for magic, make in _UNPACKERS.items() if head.startswith(magic)), None)
        if unpacker is None:
            return path
        status = path.stat()
        identity = hashlib.sha256(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
        copy = folder / f"unpacked-{identity[:16]}.tar"
        if copy.exists():
            return copy
        file.seek(0)
        try:
            with whole_file(copy) as temporary, unpacker(file) as content, temporary.open("wb") as out:
                while piece := content.read(_PIECE_BYTES):
                    out.write(piece)
                    progress(file.tell(), status.st_size)
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} breaks off or is damaged ({error}); fetch it again") from error
    return copy
