"""Shared by the model tests: small objectives, batches, and the golden files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Return a reader of golden files by name; it skips the test, naming the folder, where they are missing."""
    folder = Path(os.environ.get("ARVIS_GOLDEN_DIR", REPOSITORY.parent / "shared" / "golden"))

    def read(name: str) -> dict[str, Tensor]:
        if not (folder / name).is_file():
            pytest.skip(f"golden tensors {folder / name} are missing; set ARVIS_GOLDEN_DIR")
        from safetensors.torch import load_file

        return load_file(folder / name)

    return read


@pytest.fixture
def make_batch() -> Callable[..., dict[str, Tensor]]:
    """Return a maker of random batches for 16-pixel images, the same for the same arguments."""

    def make(num_images: int = 4, image_size: int = 16, teacher: tuple[int, int] | None = None) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        batch = {
            "images": torch.randn(num_images, 3, image_size, image_size, generator=generator),
            "sample_seeds": torch.arange(100, 100 + num_images),
        }
        if teacher is not None:
            grid, width = teacher
            batch["teacher_tokens"] = torch.randn(num_images, 1 + grid**2, width, generator=generator)
        return batch

    return make


@pytest.fixture
def perturb() -> Callable[..., None]:
    """Return a function that moves every parameter from its initial value, so that zeros and ones hide no mistake."""

    def move(module: nn.Module, std: float = 0.3) -> None:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(std * torch.randn(parameter.shape, generator=generator))

    return move
