"""What laws are made of: arrays of floats, and parameters with their meaning and unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """A law's parameter: its name in the formula, what it says, and its unit."""

    name: str
    meaning: str
    unit: str
