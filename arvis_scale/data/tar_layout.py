"""Where every byte of a shard lies, computed before anything is written.

A shard is a USTAR tar of samples `KEY.jpg` (or `.png`, `.webp`) followed, when labelled, by `KEY.cls` with the class
number as text and, when captioned, by `KEY.txt` in UTF-8. Times, owners and modes are fixed, so the same images give
the same bytes.
"""

from __future__ import annotations

import tarfile

import numpy as np
import numpy.typing as npt

BLOCK = tarfile.BLOCKSIZE  # 512: headers are one block, contents are padded to whole blocks


def sample_spans(
    sizes: npt.NDArray[np.int64], labels: npt.NDArray[np.int32], caption_sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Bytes that each sample takes in a shard, headers and padding included; a caption of 0 bytes is not written."""
    label_blocks = np.where(labels >= 0, 2, 0)  # a header and one block of text
    caption_blocks = np.where(caption_sizes > 0, 1 - (-caption_sizes // BLOCK), 0)
    return BLOCK * (1 - (-sizes // BLOCK) + label_blocks + caption_blocks)


def shard_bytes(spans: npt.NDArray[np.int64]) -> int:
    """Size of a shard of samples of these spans: two zero blocks end an archive, whole records fill it up."""
    return -(-(int(spans.sum()) + 2 * BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def encode_sample(key: str, extension: str, image: bytes, label: int, caption: bytes = b"") -> bytes:
    """The members of one sample, headers and padding included; `label` -1 writes no `.cls`, no caption no `.txt`."""
    encoded = _member(f"{key}.{extension}", image)
    if label >= 0:
        encoded += _member(f"{key}.cls", str(label).encode())
    if caption:
        encoded += _member(f"{key}.txt", caption)
    return encoded


def _member(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    header = info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    return header + content + bytes(-len(content) % BLOCK)
