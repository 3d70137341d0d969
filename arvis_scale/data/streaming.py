"""Training batches from shards without an index, through webdataset's own pipeline (`data.streaming=true`).

An endless stream: each pass takes the shards in a new order, gives every process and worker its share of them, and
shuffles the samples in a buffer. What that cannot promise, `selection.STREAM_NOTE` says, in log and run folder.
"""

from __future__ import annotations

import hashlib
import logging
import lzma
import random
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import webdataset
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from arvis_scale.config.data import ADD_AN_INDEX
from arvis_scale.data.decode import UnreadableImageError
from arvis_scale.data.faults import REASONS, BadSample
from arvis_scale.data.index import UNLABELLED
from arvis_scale.data.webdataset_shards import IMAGE_EXTENSIONS

PICKLED_EXTENSIONS = ("pyd", "pickle", "pkl", "pth", "pt")
SHUFFLE_BUFFER = 1000  # samples of one worker, as encoded as they came
# A worker whose share of the shards held nothing so many times in a row will not find anything.
MAX_EMPTY_PASSES = 100
# What opening a shard and reading a damaged tar, compressed or not, raise.
SHARD_ERRORS = (OSError, tarfile.TarError, EOFError, ValueError, TypeError, OverflowError, zlib.error, lzma.LZMAError)

Batch = dict[str, torch.Tensor]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stream:
    """What is streamed, and how: the same for all processes of a run."""

    urls: Sequence[str]
    # `view(data, sample_seed=...)` makes 3 x H x W uint8 of an image file.
    view: Callable[..., npt.NDArray[np.uint8]]
    # Another number gives another order and other crops: the run's seed and the step it goes on from.
    seed: tuple[int, ...]
    batch_size: int
    skips: bool = False
    allow_unsafe_shards: bool = False


def streamed_batches(
    stream: Stream, *, rank: int, world_size: int, num_workers: int, num_batches: int
) -> Iterator[Batch]:
    """Yield `num_batches` micro batches of one process: `images`, `sample_seeds`, `labels` (-1: `.cls` is no number).

    An image that does not decode raises `BadSample`; under `stream.skips` the next one takes its place, and the batch
    carries `bad_samples`: counts by `faults.REASONS`. A shard that cannot be opened or read is met by the same policy,
    and counts once in a pass. Fewer shards than `num_workers` a process leave workers out.

    Raises `ValueError` for fewer shards than processes, for shards without an image, and, unless
    `stream.allow_unsafe_shards`, for pickled members (which are never unpickled).
    """
    if len(stream.urls) < world_size:
        raise ValueError(
            f"data.streaming=true gives each of {world_size} processes shards of its own, and there are "
            f"{len(stream.urls)}; take fewer processes, or {ADD_AN_INDEX}"
        )
    loader: DataLoader[Any] = DataLoader(
        _Passes(stream, rank, world_size),
        batch_size=None,
        num_workers=min(num_workers, len(stream.urls) // world_size),
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else the loader would draw from, and so move, the run's global generator
    )
    for batch in islice(loader, num_batches):
        if isinstance(batch, ValueError):
            raise batch
        yield batch


class _Passes(IterableDataset[Any]):
    """One pass after the other over this process's and worker's share of the shards, as batches; or an error."""

    def __init__(self, stream: Stream, rank: int, world_size: int) -> None:
        self._stream = stream
        self._rank = rank
        self._world_size = world_size

    def __iter__(self) -> Iterator[Batch | ValueError]:
        stream, views = self._stream, []
        bad = np.zeros(len(REASONS), dtype=np.int64)
        try:
            for view in self._views(bad):
                views.append(view)
                if len(views) == stream.batch_size:
                    yield _collate(views, bad.copy() if stream.skips else None)
                    views = []
                    bad[:] = 0
        except ValueError as error:
            yield error

    def _views(self, bad: npt.NDArray[np.int64]) -> Iterator[_View]:
        """Yield views for ever, counting what is skipped into `bad`."""
        worker = get_worker_info()
        share, shares = (worker.id, worker.num_workers) if worker else (0, 1)
        num_empty = 0
        for number in count():
            draw = random.Random(repr((self._stream.seed, number)))
            shards = list(self._stream.urls)
            draw.shuffle(shards)
            shards = shards[self._rank :: self._world_size][share::shares]
            per_shard: Counter[str] = Counter()
            for sample in self._samples(shards, draw, bad):
                view = _decode(self._stream, sample, number, bad)
                if view is not None:
                    per_shard[sample["__url__"]] += 1
                    yield view
            _report(shards, per_shard)
            num_empty = 0 if per_shard else num_empty + 1
            if num_empty == MAX_EMPTY_PASSES or (num_empty and len(shards) == len(self._stream.urls)):
                raise ValueError(f"{shards[0]}, and the other shards, hold no image that can be used; {ADD_AN_INDEX}")

    def _samples(self, shards: list[str], draw: random.Random, bad: npt.NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        pipeline = webdataset.DataPipeline(
            webdataset.SimpleShardList(shards),
            webdataset.tarfile_to_samples(handler=lambda error: self._leave_out(error, bad)),
            webdataset.shuffle(SHUFFLE_BUFFER, rng=draw),
        )
        try:
            yield from pipeline
        except SHARD_ERRORS as error:
            raise _unreadable_shard(error) from error

    def _leave_out(self, error: Exception, bad: npt.NDArray[np.int64]) -> bool:
        """Count a shard that cannot be opened or read on, under `skips`; webdataset goes on with the next one.

        Returns what webdataset asks its handler: whether to go on. Errors inside a tar end that shard alone, and have
        no address; those of opening and of whole shards end with it, those of grouping members into samples with None.
        """
        if not self._stream.skips or not isinstance(error, SHARD_ERRORS):
            raise error
        bad[REASONS.index("missing_shard" if isinstance(error, FileNotFoundError) else "read_error")] += 1
        if "duplicate" in str(error):
            _logger.warning("skipped in this pass: %s", " ".join(map(str, error.args)))
        else:
            _logger.warning("skipped in this pass: %s", _unreadable_shard(error))
        return bool(error.args) and (error.args[-1] is None or error.args[-1] in self._stream.urls)


@dataclass(frozen=True)
class _View:
    pixels: npt.NDArray[np.uint8]
    seed: int
    label: int


def _decode(stream: Stream, sample: dict[str, Any], number: int, bad: npt.NDArray[np.int64]) -> _View | None:
    """Return the view of a sample in pass `number`, None for one to leave out."""
    # A name that is no UTF-8 comes with surrogates, which cannot be printed.
    shard, key = sample["__url__"], sample["__key__"].encode(errors="surrogateescape").decode(errors="backslashreplace")
    pickled = next((extension for extension in PICKLED_EXTENSIONS if extension in sample), None)
    if pickled and not stream.allow_unsafe_shards:
        raise ValueError(f"{shard}: sample {key} has a pickled member .{pickled}")
    data = next((sample[extension] for extension in IMAGE_EXTENSIONS if extension in sample), b"")
    label = sample.get("cls", b"").strip()
    digest = hashlib.sha256(repr((stream.seed, number, shard, key)).encode()).digest()
    seed = int.from_bytes(digest[:8], "little") >> 1
    try:
        return _View(stream.view(data, sample_seed=seed), seed, int(label) if label.isdigit() else UNLABELLED)
    except UnreadableImageError as error:
        if not stream.skips:
            raise BadSample(shard, key, None, error.reason, f"does not decode ({error})", ADD_AN_INDEX) from error
        bad[REASONS.index(error.reason)] += 1
        return None


def _report(shards: Sequence[str], per_shard: Counter[str]) -> None:
    """Say what a pass found."""
    counts = [per_shard[shard] for shard in shards]
    _logger.info(
        "a pass over %d shards: %d images, %d to %d of each", len(shards), sum(counts), min(counts), max(counts)
    )
    for shard in shards:
        if not per_shard[shard]:
            _logger.warning("%s gave no image: empty, cut or damaged", shard)


def _unreadable_shard(error: BaseException) -> ValueError:
    # webdataset adds the address to the arguments of what a tar raises.
    parts = [part for part in (getattr(error, "filename", None), *error.args) if isinstance(part, str)]
    said = " ".join(": ".join(parts).split()) or type(error).__name__
    return ValueError(f"a shard cannot be read ({said}); fetch it again or leave it out")


def _collate(views: Sequence[_View], bad: npt.NDArray[np.int64] | None) -> Batch:
    batch = {
        "images": torch.from_numpy(np.stack([view.pixels for view in views])),  # B x 3 x H x W
        "sample_seeds": torch.tensor([view.seed for view in views]),
        "labels": torch.tensor([view.label for view in views]),
    }
    return batch if bad is None else {**batch, "bad_samples": torch.from_numpy(bad)}
