"""Small image folders and the shards built from them."""

from __future__ import annotations

import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arvis_scale.data import retries
from arvis_scale.data.build import build_shards
from arvis_scale.data.index import UNLABELLED, DatasetIndex, SampleTable, ShardEntry, samples_folder
from arvis_scale.data.shards import ShardedDataset, open_shards
from arvis_scale.hashing import sha256_of

ImageMaker = Callable[..., bytes]


@pytest.fixture(scope="session")
def image_bytes() -> ImageMaker:
    """Maker of an encoded image of smooth colours that differ by seed."""

    def make(seed: int, image_format: str = "PNG", size: tuple[int, int] = (20, 16), mode: str = "RGB") -> bytes:
        corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
        image = Image.fromarray(corners).resize(size, Image.Resampling.BICUBIC).convert(mode)
        buffer = BytesIO()
        image.save(buffer, format=image_format)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, image_bytes: ImageMaker) -> Path:
    """A labelled folder: train 2 x 12 PNG, test 2 x 4 JPEG. Read-only."""
    root = tmp_path_factory.mktemp("source") / "photos"
    for split, suffix, num_images in (("train", "png", 12), ("test", "jpg", 4)):
        for number, name in enumerate(("cat", "dog")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for image in range(num_images):
                seed = 1000 * number + 100 * (split == "test") + image
                data = image_bytes(seed, "PNG" if suffix == "png" else "JPEG")
                (folder / f"{image:04d}.{suffix}").write_bytes(data)
    return root


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """The folder of shards of `photos`, up to 7 samples each: 4 train shards of 6, 2 test shards of 4. Read-only."""
    destination = tmp_path_factory.mktemp("built") / "photos"
    build_shards(photos, destination, samples_per_shard=7)
    return destination


@pytest.fixture(scope="session")
def dataset(shards: Path) -> ShardedDataset:
    return open_shards(shards)


@pytest.fixture(scope="session")
def write_tar() -> Callable[..., list[tuple[int, int]]]:
    """Writer of a tar of (name, content); gives offset and size of each content. Surrogates are raw bytes in a name."""

    def write(path: Path, members: list[tuple[str, bytes]]) -> list[tuple[int, int]]:
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, BytesIO(content))
        with tarfile.open(path) as archive:
            return [(member.offset_data, member.size) for member in archive]

    return write


@pytest.fixture(scope="session")
def write_shards(write_tar: Callable[..., list[tuple[int, int]]]) -> Callable[..., Path]:
    """Writer of (key, image, label) as shards with a train split of two classes, whatever the images and keys are."""

    def write(folder: Path, images: list[tuple[str, bytes, int]], *, samples_per_shard: int) -> Path:
        folder.mkdir()
        entries, tables = [], []
        for start in range(0, len(images), samples_per_shard):
            chosen = images[start : start + samples_per_shard]
            path = folder / f"train-{len(entries):06d}.tar"
            offsets, sizes = np.array(write_tar(path, [(f"{key}.jpg", image) for key, image, _ in chosen])).T
            labels = np.array([label for _, _, label in chosen], dtype=np.int32)
            keys = np.array([key.encode(errors="surrogateescape") for key, _, _ in chosen], dtype="S40")
            tables.append(SampleTable(offsets, sizes, labels, keys, np.full(len(chosen), b"jpg")))
            entries.append(ShardEntry(path.name, len(chosen), path.stat().st_size, sha256_of(path)))
        table = SampleTable.concatenate(tables)
        table.write(samples_folder(folder, "train"))
        classes = [] if (table.label == UNLABELLED).all() else ["one", "other"]
        DatasetIndex("faults", classes, {"train": entries}, [], {"train": table.sha256()}).write(folder)
        return folder

    return write


class _RangeHandler(SimpleHTTPRequestHandler):
    """Serves the files of a folder, whole or in ranges."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        body = content[int(asked[1]) : int(asked[2]) + 1 if asked[2] else None] if asked else content
        self.send_response(200 if asked is None else 206 if body else 416)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], str]]:
    """Starter of an HTTP server of a folder that knows ranges; gives its address. Failed requests come again soon."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)
    started = []

    def start(folder: Path) -> str:
        http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_RangeHandler, directory=str(folder)))
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        started.append((http, thread))
        return f"http://127.0.0.1:{http.server_port}"

    yield start
    for http, thread in started:
        http.shutdown()
        http.server_close()
        thread.join()
