"""Random number generators go on after a restart as they would have."""

import random

import numpy as np
import torch

from arvis_scale.engine.checkpointing.random_state import random_state, restore_random_state
from arvis_scale.engine.checkpointing.writing import write_tensors


def draw():
    return random.random(), np.random.normal(), np.random.rand(), torch.randn(3).tolist()


def test_every_generator_goes_on_where_it_was(tmp_path):
    np.random.normal()  # of two normal numbers drawn together, one is kept for the next call
    write_tensors(random_state(), tmp_path / "random.pt")
    expected = draw()
    assert draw() != expected
    restore_random_state(tmp_path / "random.pt")
    assert draw() == expected
