"""Batches from shards without an index, through webdataset's own pipeline: for a look at data that others packed.

What is weaker than with an index: the order depends on processes and workers, there is no going on inside an epoch,
processes may get different numbers of batches, and a damaged shard ends early without a word. So a training run reads
an index (`arvis-scale shards build --index-only` writes one over shards that stay where they are), and here the samples
that came are counted by shard.
"""

from __future__ import annotations

import hashlib
import logging
import random
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import webdataset

from arvis_scale.data.decode import UnreadableImageError
from arvis_scale.data.faults import REASONS, BadSample
from arvis_scale.data.index import UNLABELLED

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
PICKLED_EXTENSIONS = ("pyd", "pickle", "pkl", "pth", "pt")
ADVICE = "write an index over the shards: arvis-scale shards build SHARDS DST --index-only"

Batch = dict[str, torch.Tensor]

_logger = logging.getLogger(__name__)


def stream_batches(
    urls: Sequence[str],
    view: Callable[..., npt.NDArray[np.uint8]],
    *,
    batch_size: int,
    seed: int,
    epoch: int = 0,
    num_workers: int = 0,
    shuffle_buffer: int = 1000,
    on_bad_sample: str = "raise",
    allow_unsafe_shards: bool = False,
) -> Iterator[Batch]:
    """Yield this process's batches of one epoch: `images`, `sample_seeds`, `labels` (-1 where `.cls` is no number).

    `view(data, sample_seed=...)` makes 3 x H x W uint8 of an image file. Under `on_bad_sample="skip"` an image that
    does not decode is left out, and the batch, smaller by it, carries `bad_samples`: counts by `faults.REASONS`. The
    log says what is not guaranteed, and at the end how many samples came from how many shards.

    Raises `BadSample`; `ValueError` for a shard that cannot be opened, and, unless `allow_unsafe_shards`, for an
    address that runs a command and for pickled members (which are never unpickled).
    """
    for url in urls:
        if url.startswith("pipe:") and not allow_unsafe_shards:
            raise ValueError(f"{url} would run a command; give an address, or allow_unsafe_shards=True")
    _logger.warning("streaming %d shards: no exact order, no resume, no known length; %s", len(urls), ADVICE)
    dataset = webdataset.WebDataset(
        list(urls),
        shardshuffle=len(urls),
        detshuffle=True,
        seed=seed + epoch,
        nodesplitter=webdataset.split_by_node,
        empty_check=False,
    )
    dataset = dataset.shuffle(shuffle_buffer, rng=random.Random(seed + epoch))
    dataset = dataset.compose(_Decoder(view, seed + epoch, on_bad_sample == "skip", allow_unsafe_shards))
    dataset = dataset.batched(batch_size, collation_fn=_collate)
    per_shard: Counter[str] = Counter()
    generator = torch.Generator()  # else the loader would move the run's global one
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=num_workers, generator=generator)
    for samples in loader:
        if isinstance(samples, ValueError):
            raise samples
        batch, shards = samples
        per_shard.update(shards)
        yield batch
    counts = [per_shard[url] for url in urls]
    _logger.warning(
        "%d samples came from %d shards, %d to %d from each", sum(counts), len(urls), min(counts), max(counts)
    )


@dataclass(frozen=True)
class _Decoder:
    """webdataset's samples -> (shard, view, seed, label), or (shard, reason) for one to leave out, or an error."""

    view: Callable[..., npt.NDArray[np.uint8]]
    seed: int
    skips: bool
    allow_unsafe_shards: bool

    def __call__(self, samples: Iterable[dict[str, Any]]) -> Iterator[Any]:
        try:
            for sample in samples:
                yield self._decode(sample)
        except (tarfile.TarError, OSError, ValueError) as error:
            yield error if isinstance(error, ValueError) else _unreadable_shard(error)

    def _decode(self, sample: dict[str, Any]) -> Any:
        shard, key = sample["__url__"], sample["__key__"]
        pickled = next((extension for extension in PICKLED_EXTENSIONS if extension in sample), None)
        if pickled and not self.allow_unsafe_shards:
            raise ValueError(f"{shard}: sample {key} has a pickled member .{pickled}")
        data = next((sample[extension] for extension in IMAGE_EXTENSIONS if extension in sample), b"")
        label = sample.get("cls", b"").strip()
        digest = hashlib.sha256(f"{self.seed} {key}".encode()).digest()
        sample_seed = int.from_bytes(digest[:8], "little") >> 1
        try:
            view = self.view(data, sample_seed=sample_seed)
        except UnreadableImageError as error:
            if not self.skips:
                raise BadSample(shard, key, None, error.reason, f"does not decode ({error})", ADVICE) from error
            return shard, error.reason
        return shard, view, sample_seed, int(label) if label.isdigit() else UNLABELLED


def _unreadable_shard(error: tarfile.TarError | OSError) -> ValueError:
    # webdataset adds the address to the arguments of what a tar raises.
    parts = [part for part in (getattr(error, "filename", None), *error.args) if isinstance(part, str)]
    return ValueError(f"a shard cannot be read ({': '.join(parts)}); fetch it again or leave it out")


def _collate(samples: list[Any]) -> Any:
    """One batch and the shards of its samples, or the error among them."""
    for sample in samples:
        if isinstance(sample, ValueError):
            return sample
    views = [sample for sample in samples if len(sample) == 4]
    bad = Counter(sample[1] for sample in samples if len(sample) == 2)
    batch = {
        "images": torch.from_numpy(np.stack([view for _, view, _, _ in views])) if views else torch.empty(0),
        "sample_seeds": torch.tensor([seed for _, _, seed, _ in views]),
        "labels": torch.tensor([label for _, _, _, label in views]),
        "bad_samples": torch.tensor([bad[reason] for reason in REASONS]),
    }
    return batch, [sample[0] for sample in views]
