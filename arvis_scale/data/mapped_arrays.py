"""Opening `.npy` files as memory maps, with whatever is wrong with them as one kind of error."""

from __future__ import annotations

import warnings
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt


def open_mapped(path: Path) -> npt.NDArray[Any]:
    """Return the array of an `.npy` file, memory-mapped and read-only.

    Raises `ValueError` saying in one line, without the path, why the file holds none or more than one array. numpy
    itself takes a longer header or a longer file, after which every number is another one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # a damaged header that numpy takes for one of Python 2
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    # SyntaxError, TokenError, TypeError: numpy parses the header; OverflowError: a negative length in it.
    except (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError, OverflowError, UserWarning) as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(array, np.memmap):
        raise ValueError("an archive of arrays")
    num_extra = path.stat().st_size - array.offset - array.nbytes
    if num_extra:
        raise ValueError(f"{num_extra} bytes too many")
    # As a plain array: element by element, numpy's memmap type is several times slower.
    return np.asarray(array)
