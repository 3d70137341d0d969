"""Range reads of shards on http(s) servers and object stores, through fsspec."""

from __future__ import annotations

import asyncio
import errno
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from arvis_scale.data.retries import with_retries

# A shuffled order jumps between samples, and what a block holds besides its sample is mostly read in vain: 15% on
# images of 110 KB, 65% on images of 25 KB. Images of a kilobyte come ten at a time.
BLOCK_BYTES = 16 * 1024
CACHE_BYTES = 64 * 1024**2
COPY_BYTES = 8 * 1024**2
REQUESTS_AT_ONCE = 16  # of one process; a training node has dozens
TIMEOUT_SECONDS = 60.0
NUM_RETRIES = 5
NOT_FOUND, RANGE_NOT_SATISFIABLE = 404, 416  # HTTP statuses
# What fsspec needs for an address, and the packages whose exceptions it lets through.
PACKAGES = {"http": "fsspec[http]", "https": "fsspec[http]", "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
CLIENTS = ("aiohttp", "aiobotocore", "botocore", "gcsfs", "google")


def is_remote(address: str) -> bool:
    """Return whether `address` is a URL (`https://...`, `s3://...`, `file://...`) and not a path."""
    return "://" in address and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", address) is not None


class RemoteFiles:
    """Reads ranges of remote files in whole blocks, and keeps the blocks that were used last.

    Safe to use after a fork and to pickle (a copy starts with an empty cache); not for several threads at once.
    """

    def __init__(
        self, num_retries: int = NUM_RETRIES, block_bytes: int = BLOCK_BYTES, cache_bytes: int = CACHE_BYTES
    ) -> None:
        """`cache_bytes` bounds the memory held between two reads; one read may need more while it lasts."""
        self._num_retries = num_retries
        self._block_bytes = block_bytes
        self._max_blocks = max(1, cache_bytes // block_bytes)
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._hosts_checked: set[str] = set()

    def read_range(self, url: str, offset: int, size: int) -> bytes:
        """Return `size` bytes of `url` from byte `offset`; fewer where the file ends before them, as a file would give.

        A failed request is repeated with back-off. Raises `FileNotFoundError` at once, any other `OSError` after the
        last attempt, and `ValueError` when no fsspec file system knows the address.
        """
        wanted = self._blocks_of(offset, size)
        blocks = {block: self._blocks[url, block] for block in wanted if (url, block) in self._blocks}
        if len(blocks) < len(wanted):
            self._refuse_without_ranges(url)
            start, end = wanted.start * self._block_bytes, wanted.stop * self._block_bytes
            blocks = self._cut(self._request(url, start, end), wanted)
        self._remember(url, blocks)
        start = offset - wanted.start * self._block_bytes
        return b"".join(blocks[block] for block in wanted)[start : start + size]

    def prefetch(self, ranges: Iterable[tuple[str, int, int]]) -> None:
        """Ask for several ranges (URL, offset, size) at the same time, so that `read_range` finds them at hand.

        Ranges are left out that the cache has or has no room for; one that fails is left to `read_range`.
        """
        by_filesystem: dict[str, dict[tuple[str, range], None]] = {}
        num_blocks = 0
        for url, offset, size in ranges:
            wanted = self._blocks_of(offset, size)
            num_blocks += len(wanted)
            if num_blocks <= self._max_blocks and any((url, block) not in self._blocks for block in wanted):
                by_filesystem.setdefault(url.split("://")[0], {})[url, wanted] = None
        for places in by_filesystem.values():
            self._fetch_together(list(places))

    def _fetch_together(self, places: list[tuple[str, range]]) -> None:
        urls = [url for url, _ in places]
        starts, ends = ([getattr(blocks, end) * self._block_bytes for _, blocks in places] for end in ("start", "stop"))
        if len(places) == 1 or not _filesystem(urls[0]).async_impl:  # nothing to gain
            return

        def ask(files: Any, options: dict[str, Any]) -> Any:
            return files.cat_ranges(urls, starts, ends, batch_size=REQUESTS_AT_ONCE, on_error="return", **options)

        try:
            for url in urls:
                self._refuse_without_ranges(url)
            answers = _ask(urls[0], ask)
        except OSError:
            return  # `read_range` meets it again, retries, and says where it was
        for (url, blocks), answer in zip(places, answers, strict=True):
            if isinstance(answer, bytes) and len(answer) <= len(blocks) * self._block_bytes:
                self._remember(url, self._cut(answer, blocks))

    def _blocks_of(self, offset: int, size: int) -> range:
        assert offset >= 0 and size >= 0, f"range {offset} + {size}"
        return range(offset // self._block_bytes, -(-(offset + size) // self._block_bytes))

    def _cut(self, data: bytes, blocks: range) -> dict[int, bytes]:
        size = self._block_bytes
        return {block: data[number * size : (number + 1) * size] for number, block in enumerate(blocks)}

    def _refuse_without_ranges(self, url: str) -> None:
        """Raise `OSError` when the server answers a range with the whole file; of one byte asked for, that shows."""
        host = "/".join(url.split("/")[:3])
        if url.startswith("http") and host not in self._hosts_checked:
            self._request(url, 0, 1)
            self._hosts_checked.add(host)

    def _request(self, url: str, start: int, end: int) -> bytes:
        def ask() -> bytes:
            data: bytes = _ask(url, lambda files, options: files.cat_file(url, start=start, end=end, **options))
            return data

        try:
            data = with_retries(ask, self._num_retries, may_pass=_may_pass)
        except _RefusedError as error:
            if error.errno == RANGE_NOT_SATISFIABLE:  # the file ends before the range begins
                return b""
            raise
        if len(data) > end - start:
            raise OSError("the server does not answer range requests; copy the shards to a disk or another server")
        return data

    def _remember(self, url: str, blocks: dict[int, bytes]) -> None:
        for number, block in sorted(blocks.items()):
            self._blocks[url, number] = block
            self._blocks.move_to_end((url, number))
        while len(self._blocks) > self._max_blocks:
            self._blocks.popitem(last=False)

    def __reduce__(self) -> tuple[type[RemoteFiles], tuple[int, int, int]]:
        return RemoteFiles, (self._num_retries, self._block_bytes, self._max_blocks * self._block_bytes)


def copy_file(url: str, path: Path, num_retries: int = NUM_RETRIES) -> None:
    """Copy a remote file to `path`, in pieces; raises as `RemoteFiles.read_range` does."""
    files = RemoteFiles(num_retries, block_bytes=COPY_BYTES, cache_bytes=0)
    with path.open("wb") as file:
        while piece := files.read_range(url, file.tell(), COPY_BYTES):
            file.write(piece)


def size_of(url: str, num_retries: int = NUM_RETRIES) -> int | None:
    """Return the length of a remote file in bytes, None where its server does not say.

    Raises as `RemoteFiles.read_range` does.
    """

    def ask() -> int | None:
        size: int | None = _ask(url, lambda files, options: files.size(url, **options))
        return size

    return with_retries(ask, num_retries, may_pass=_may_pass)


class _RefusedError(OSError):
    """The server's answer will be the same when it is asked again; `errno` is the HTTP status."""


def _may_pass(error: OSError) -> bool:
    return not isinstance(error, FileNotFoundError | PermissionError | _RefusedError)


def _ask(url: str, question: Callable[[Any, dict[str, Any]], Any]) -> Any:
    """Return `question(file system, options)`; all that goes wrong on the way to the server is an `OSError`."""
    try:
        filesystem = _filesystem(url)  # gcsfs asks its server here already
        options = {"timeout": TIMEOUT_SECONDS} if filesystem.async_impl else {}
        return question(filesystem, options)
    except asyncio.TimeoutError as error:  # no OSError before Python 3.11
        raise TimeoutError(f"no answer in {TIMEOUT_SECONDS:g} seconds") from error
    except Exception as error:  # those of a store's client have no base in common, and some are no OSError
        # fsspec hides what the client said behind errors of its own, such as a missing file behind any failure.
        said = next((each for each in (error, error.__cause__) if _is_of_client(each)), None)
        if said is None:
            raise
        raise _os_error(said) from error


def _is_of_client(error: BaseException | None) -> bool:
    return type(error).__module__.partition(".")[0] in CLIENTS


def _os_error(error: BaseException) -> OSError:
    """Return what the client of an HTTP server or an object store raised as the error of a disk."""
    status = _status(error)
    if status is None:
        return OSError(" ".join(str(error).split()) or type(error).__name__)
    if status == NOT_FOUND:
        return FileNotFoundError(errno.ENOENT, "HTTP status 404")
    refused = 400 <= status < 500 and status not in (408, 429)  # those two ask for patience
    return (_RefusedError if refused else OSError)(status, f"HTTP status {status}")


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an error: aiohttp has it as `status`, gcsfs as `code`, botocore in `response`."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(error, "status" if hasattr(error, "status") else "code", None)
    return int(status) if str(status).isdigit() else None


def _filesystem(url: str) -> Any:
    """Return fsspec's file system for `url`; fsspec keeps one per process, also after a fork."""
    protocol = url.split("://")[0]
    try:
        import fsspec

        return fsspec.filesystem(protocol)
    except (ImportError, ValueError) as error:
        package = PACKAGES.get(protocol)
        advice = f"pip install '{package}'" if package else "install what is missing"
        raise ValueError(f"{url} cannot be read ({error}); {advice}, or copy the shards to a disk") from error
