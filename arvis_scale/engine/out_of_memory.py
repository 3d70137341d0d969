"""A run that did not fit into memory goes on with half the micro batch; its global batch stays what it was."""

from __future__ import annotations

from dataclasses import replace

from arvis_scale.config import RunConfig


def fitted(config: RunConfig, out_of_memory_at: int | None) -> RunConfig:
    """Return `config`, with half of `out_of_memory_at` as its micro batch where it is that size or larger.

    `out_of_memory_at`: micro batch size that the run ran out of memory with (`Status`), or None.
    """
    if out_of_memory_at is None or config.micro_batch_size < out_of_memory_at:
        return config
    size = half_micro_batch(config, out_of_memory_at)
    return config if size is None else replace(config, micro_batch_size=size)


def half_micro_batch(config: RunConfig, size: int) -> int | None:
    """Return the largest micro batch size of at most half of `size` that fills the global batch; None for none."""
    share = config.global_batch_size // config.data_parallel_size
    return next((smaller for smaller in range(size // 2, 0, -1) if share % smaller == 0), None)
