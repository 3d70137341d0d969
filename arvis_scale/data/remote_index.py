"""A shard folder on a server: its index is copied to this machine, its shards stay where they are."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import tempfile
from dataclasses import fields, replace
from pathlib import Path

from arvis_scale.data.index import INDEX_NAME, DatasetIndex, SampleTable, read_index, samples_folder
from arvis_scale.data.remote import NUM_RETRIES, copy_file, is_remote

_logger = logging.getLogger(__name__)


def index_folder(address: str | Path, num_retries: int = NUM_RETRIES) -> Path:
    """Return the folder that holds the index of the shards at `address`: a folder, or the URL of one.

    That of a URL is a copy, which names the shards by their own URLs. It is kept in the user's cache under address and
    content hash, so that another process or start asks the server for `index.json` alone, and shards that were built
    anew get an index of their own.

    Raises `ValueError` in one line when the URL is none of a shard folder or cannot be read, and when its index is
    damaged.
    """
    if not is_remote(str(address)):
        return Path(address)
    url = str(address).rstrip("/")
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".copying-", dir=cache))
    try:
        _copy(f"{url}/{INDEX_NAME}", folder / INDEX_NAME, num_retries)
        index = read_index(folder)
        kept = cache / _name(url, index)
        if not kept.is_dir():
            _logger.info("copying the index of %s to %s", url, kept)
            _copy_tables(url, index, folder, num_retries)
            _with_urls(index, url).write(folder)
            _publish(folder, kept)
        return kept
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_tables(url: str, index: DatasetIndex, folder: Path, num_retries: int) -> None:
    for split in index.splits:
        samples = samples_folder(folder, split)
        samples.mkdir()
        for column in fields(SampleTable):
            _copy(f"{url}/{samples.name}/{column.name}.npy", samples / f"{column.name}.npy", num_retries)
        if SampleTable.open(samples).sha256() != index.table_sha256[split]:
            raise ValueError(f"{url}/{samples.name} differs from the hash in {INDEX_NAME}; copy the folder there again")


def _copy(url: str, path: Path, num_retries: int) -> None:
    try:
        copy_file(url, path, num_retries)
    except FileNotFoundError as error:
        raise ValueError(f"{url} is missing; give the URL of a folder written by `arvis-scale shards build`") from error
    except OSError as error:
        raise ValueError(f"{url} cannot be read ({error.strerror or error})") from error


def _with_urls(index: DatasetIndex, url: str) -> DatasetIndex:
    """Return `index` with plain names of shards, which lie beside it, as URLs; the content hash stays the same."""
    splits = {
        split: [
            replace(entry, file=f"{url}/{entry.file}") if Path(entry.file).name == entry.file else entry
            for entry in entries
        ]
        for split, entries in index.splits.items()
    }
    return replace(index, splits=splits)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "arvis_scale" / "indexes"


def _name(url: str, index: DatasetIndex) -> str:
    """Return a name for the copy that tells errors' readers whose it is."""
    readable = re.sub(r"[^\w.-]+", "_", url.partition("://")[2]).strip("_.")[-80:]
    return f"{readable}-{hashlib.sha256(f'{url} {index.content_hash}'.encode()).hexdigest()[:16]}"


def _publish(folder: Path, kept: Path) -> None:
    """Let a copy appear whole, as `kept`; another process may have been faster with the same."""
    try:
        folder.replace(kept)
    except OSError:
        if not kept.is_dir():
            raise
