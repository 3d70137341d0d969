"""The built-in data set `digits`: scikit-learn's 1,797 scans of handwritten digits as an image folder in memory."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

NUM_TEST_IMAGES = 797  # leaves 1,000 to train on
IMAGE_SIZE = 32


def digits_files() -> list[tuple[str, bytes]]:
    """`(split/class/number.png, bytes)` of every scan, 32 x 32 RGB, bicubic from 8 x 8.

    The split (train 1,000, test 797, stratified by digit) belongs to the data set and has a fixed seed of its own.
    """
    # Imported here: scikit-learn takes a second to load and no other source needs it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans = load_digits()
    numbers = np.arange(len(scans.target))
    _, test = train_test_split(numbers, test_size=NUM_TEST_IMAGES, stratify=scans.target, random_state=0)
    test_numbers = set(test.tolist())
    return [
        (f"{'test' if number in test_numbers else 'train'}/{scans.target[number]}/{number:04d}.png", _png(scan))
        for number, scan in enumerate(scans.images)
    ]


def _png(scan: np.ndarray) -> bytes:
    grey = np.rint(scan * (255 / 16)).astype(np.uint8)  # 8 x 8, ink from 0 to 16
    image = Image.fromarray(grey).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC).convert("RGB")
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
