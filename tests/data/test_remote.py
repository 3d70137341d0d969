"""Range reads over HTTP and file://: right bytes, retries, bounded memory."""

from __future__ import annotations

import errno
import pickle
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.spec import AbstractFileSystem

from arvis_scale.data import retries
from arvis_scale.data.remote import RemoteFiles, is_remote
from arvis_scale.data.retries import with_retries

CONTENT = np.random.default_rng(0).bytes(10_000)


@dataclass
class Server:
    """An HTTP server of one file, and how it answers; `ranges` lists the ranges asked for."""

    url: str = ""
    failures: list[int] = field(default_factory=list)  # statuses of the next answers; 0 breaks the connection
    honors_ranges: bool = True
    ranges: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.at_once += 1
            state.most_at_once = max(state.most_at_once, state.at_once)
            time.sleep(0.005)
            self.answer()
            state.at_once -= 1

        def answer(self) -> None:
            asked = self.headers.get("Range", "")
            state.ranges.append(asked)
            failure = state.failures.pop(0) if state.failures else None
            if failure == 0:
                self.send_response(206)
                self.send_header("Content-Length", "100")
                self.end_headers()
                self.wfile.write(b"cut")
                self.close_connection = True
                return
            bounds = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
            start, end = (int(bounds[1]), int(bounds[2]) + 1) if bounds else (0, len(CONTENT))
            if not state.honors_ranges:
                start, end = 0, len(CONTENT)
            status = failure or (206 if state.honors_ranges else 200)
            status = 404 if self.path != "/a.tar" else 416 if start >= len(CONTENT) else status
            body = CONTENT[start:end] if status in (200, 206) else b"an error page"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}/a.tar"
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def test_ranges_over_http_are_the_bytes_of_the_file(server: Server) -> None:
    files = RemoteFiles(0, block_bytes=512)
    for offset, size in ((0, 1), (0, 10_000), (511, 2), (4000, 100), (9_999, 1), (3, 0)):
        assert files.read_range(server.url, offset, size) == CONTENT[offset : offset + size]


def test_ranges_of_a_file_url_are_the_bytes_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(CONTENT)
    assert RemoteFiles(0).read_range((tmp_path / "a.tar").as_uri(), 700, 900) == CONTENT[700:1600]


def test_a_range_past_the_end_gives_what_there_is(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(CONTENT)
    for url in (server.url, (tmp_path / "a.tar").as_uri()):
        files = RemoteFiles(0, block_bytes=512)
        assert files.read_range(url, 9_990, 100) == CONTENT[9_990:]
        assert files.read_range(url, 20_000, 100) == b""


def test_neighbouring_ranges_are_one_request(server: Server) -> None:
    files = RemoteFiles(0, block_bytes=4096)
    for offset in range(0, 4000, 100):
        files.read_range(server.url, offset, 100)
    assert server.ranges == ["bytes=0-0", "bytes=0-4095"]  # the first asks whether the server knows ranges


def test_the_cache_is_bounded_and_keeps_what_was_used_last(server: Server) -> None:
    files = RemoteFiles(0, block_bytes=512, cache_bytes=1024)
    for offset in (0, 512, 0, 1024, 0, 512):
        files.read_range(server.url, offset, 512)
    assert server.ranges[1:] == ["bytes=0-511", "bytes=512-1023", "bytes=1024-1535", "bytes=512-1023"]


def test_prefetched_ranges_are_asked_for_together_and_read_without_a_request(server: Server) -> None:
    files = RemoteFiles(0, block_bytes=512)
    places = [(offset, 300) for offset in range(0, 10_000, 1000)]
    files.prefetch([(server.url, offset, size) for offset, size in places])
    num_requests = len(server.ranges)
    assert num_requests == 1 + len(places) and server.most_at_once > 1
    for offset, size in places:
        assert files.read_range(server.url, offset, size) == CONTENT[offset : offset + size]
    assert len(server.ranges) == num_requests


def test_a_prefetch_stays_within_the_cache(server: Server) -> None:
    files = RemoteFiles(0, block_bytes=512, cache_bytes=4 * 512)
    files.prefetch([(server.url, 512 * block, 512) for block in range(10)])
    assert len(server.ranges) == 1 + 4


def test_what_a_prefetch_does_not_get_is_read_later(server: Server) -> None:
    server.failures = [206, 503, 404, 0]  # the first one answers the question for ranges
    files = RemoteFiles(2, block_bytes=512)
    files.prefetch([(server.url, 512 * block, 512) for block in range(6)])
    files.prefetch([("http://127.0.0.1:1/a.tar", 0, 10), ("http://127.0.0.1:1/a.tar", 5000, 10)])
    assert all(
        files.read_range(server.url, 512 * block, 512) == CONTENT[512 * block : 512 * block + 512] for block in range(6)
    )


@pytest.mark.parametrize("failure", [503, 500, 429, 0])
def test_a_request_that_fails_is_repeated(server: Server, failure: int) -> None:
    server.failures = [failure] * 3
    assert RemoteFiles(3).read_range(server.url, 100, 50) == CONTENT[100:150]


def test_a_request_that_keeps_failing_raises_the_last_error(server: Server) -> None:
    server.failures = [503] * 10
    with pytest.raises(OSError, match="HTTP status 503"):
        RemoteFiles(2).read_range(server.url, 0, 10)
    assert len(server.ranges) == 3


def test_a_missing_or_denied_file_is_not_asked_for_again(server: Server) -> None:
    with pytest.raises(FileNotFoundError):
        RemoteFiles(5).read_range(server.url.replace("a.tar", "b.tar"), 0, 10)
    server.failures = [403]
    with pytest.raises(OSError, match="HTTP status 403"):
        RemoteFiles(5).read_range(server.url, 0, 10)
    assert len(server.ranges) == 2


def test_a_server_that_knows_no_ranges_is_refused(server: Server) -> None:
    server.honors_ranges = False
    with pytest.raises(OSError, match="does not answer range requests"):
        RemoteFiles(5).read_range(server.url, 5_000, 4_000)
    assert len(server.ranges) == 1


def test_a_dead_server_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)
    with pytest.raises(OSError):
        RemoteFiles(1).read_range("http://127.0.0.1:1/a.tar", 0, 10)


def test_an_address_of_no_known_kind_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="gopher://host/a.tar cannot be read") as caught:
        RemoteFiles(1).read_range("gopher://host/a.tar", 0, 10)
    assert "\n" not in str(caught.value)
    assert not is_remote("/data/a.tar") and not is_remote("a.tar") and is_remote("s3://bucket/a.tar")


class ClientError(Exception):
    """What the client of an object store raises; botocore keeps the HTTP status in a response."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        if status is not None:
            self.response = {"Error": {"Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}


ClientError.__module__ = "botocore.exceptions"


class Store(AbstractFileSystem):
    """A file system of fsspec that raises `says`, or, as s3fs does, an `OSError` that hides it."""

    protocol = "store"
    cachable = False
    says: ClassVar[Exception] = ClientError("")
    hides: ClassVar[bool] = False
    times_asked: ClassVar[int] = 0

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: object) -> bytes:
        Store.times_asked += 1
        if Store.hides:
            raise OSError(errno.EINVAL, "what s3fs makes of it") from Store.says
        raise Store.says


@pytest.fixture
def ask_store(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(Store, "times_asked", 0)
    fsspec.register_implementation("store", Store, clobber=True)

    def ask(says: Exception, *, hides: bool) -> bytes:
        monkeypatch.setattr(Store, "says", says)
        monkeypatch.setattr(Store, "hides", hides)
        return RemoteFiles(2).read_range("store://bucket/a.tar", 20_000, 10)

    return ask


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize(
    ("says", "error", "said", "times"),
    [
        (ClientError("Unable to locate\ncredentials"), OSError, "Unable to locate credentials", 3),
        (ClientError("Slow down", 503), OSError, "HTTP status 503", 3),
        (ClientError("Access denied", 403), OSError, "HTTP status 403", 1),
        (ClientError("No such key", 404), FileNotFoundError, "HTTP status 404", 1),
    ],
)
def test_what_the_client_of_a_store_raises_is_the_error_of_a_disk(
    ask_store: Callable[..., bytes], says: ClientError, error: type[Exception], said: str, times: int, hides: bool
) -> None:
    with pytest.raises(error, match=said):
        ask_store(says, hides=hides)
    assert Store.times_asked == times


@pytest.mark.parametrize("hides", [False, True])
def test_a_store_s_range_past_the_end_gives_nothing(ask_store: Callable[..., bytes], hides: bool) -> None:
    assert ask_store(ClientError("The requested range is not satisfiable", 416), hides=hides) == b""


def test_a_mistake_in_the_program_stays_what_it_is(ask_store: Callable[..., bytes]) -> None:
    with pytest.raises(TypeError):
        ask_store(TypeError("unexpected keyword"), hides=False)
    assert Store.times_asked == 1


def test_a_pickled_copy_reads_on_with_an_empty_cache(server: Server) -> None:
    files = RemoteFiles(0, block_bytes=4096)
    files.read_range(server.url, 0, 4096)
    copy = pickle.loads(pickle.dumps(files))
    assert copy.read_range(server.url, 0, 4096) == CONTENT[:4096]
    assert server.ranges.count("bytes=0-4095") == 2


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_errors_of_a_network_disk_are_retried_after_reopening(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)
    errors, reopened = [OSError(code, "server gone"), OSError(code, "server gone")], []

    def attempt() -> str:
        if errors:
            raise errors.pop()
        return "read"

    assert with_retries(attempt, 2, before_retry=lambda: reopened.append(1)) == "read"
    assert len(reopened) == 2


def test_a_missing_file_on_disk_is_not_retried() -> None:
    attempts = []

    def attempt() -> None:
        attempts.append(1)
        raise FileNotFoundError(errno.ENOENT, "no such file")

    with pytest.raises(FileNotFoundError):
        with_retries(attempt, 5)
    assert len(attempts) == 1
