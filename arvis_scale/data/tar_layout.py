"""Where every byte of a shard lies, computed before anything is written.

A shard is a USTAR tar of samples `KEY.jpg` (or `.png`, `.webp`) followed, when labelled, by `KEY.cls` with the class
number as text. Times, owners and modes are fixed, so the same images give the same bytes.
"""

from __future__ import annotations

import tarfile

import numpy as np
import numpy.typing as npt

BLOCK = tarfile.BLOCKSIZE  # 512: headers are one block, contents are padded to whole blocks


def sample_offsets(sizes: npt.NDArray[np.int64], labels: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], int]:
    """Offsets of the samples' first headers in a shard, and the size of the whole shard in bytes.

    The image's own bytes begin one block after its header.
    """
    label_blocks = np.where(labels >= 0, 2, 0)  # a header and one block of text
    spans = BLOCK * (1 + -(-sizes // BLOCK) + label_blocks)
    ends = np.cumsum(spans)
    used = int(ends[-1]) + 2 * BLOCK  # two zero blocks end an archive
    return ends - spans, -(-used // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def encode_sample(key: str, extension: str, image: bytes, label: int) -> bytes:
    """The members of one sample, headers and padding included; `label` -1 writes no `.cls`."""
    encoded = _member(f"{key}.{extension}", image)
    return encoded + _member(f"{key}.cls", str(label).encode()) if label >= 0 else encoded


def _member(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    header = info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    return header + content + bytes(-len(content) % BLOCK)
