"""The published recipes: what they say first, that they load, and that their models build."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from arvis_scale.config import OBJECTIVES, RunConfig, load_config, recipe_names, recipe_path
from arvis_scale.models.build import build_objective

GIVEN = ["name=a", "output=runs/a", "data.shards=shards/a", "teacher.checkpoint=teacher"]
# These train whatever objective is asked for, small.
SMALL = ("cifar10", "digits")
PUBLISHED = [name for name in recipe_names() if name not in SMALL]
IN1K_IMAGES = 1_281_167


def recipe(name: str) -> RunConfig:
    return load_config(name, GIVEN)


def test_every_objective_has_a_published_recipe() -> None:
    assert {recipe(name).objective for name in PUBLISHED} == set(OBJECTIVES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_first_lines_are_the_command_and_the_result_aimed_at(name: str) -> None:
    command, aim, *_ = recipe_path(name).read_text(encoding="utf-8").splitlines()
    assert command.startswith(f"# arvis-scale train {name} name=")
    assert load_config(name, command.split()[4:]).objective == name.split("_")[0]
    assert aim.startswith("# Aims at")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_model_builds(name: str) -> None:
    config = recipe(name)
    with torch.device("meta"):
        build_objective(
            config.objective,
            preset=config.preset,
            image_size=config.image_size,
            patch_size=config.patch_size,
            options=dataclasses.asdict(getattr(config, config.objective)),
            teacher_width=1024,
            teacher_grid=16,
        )


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "learning_rate", "warmup_epochs"),
    [
        ("xtra_b16_in1k", 800, 2048, 1e-3, 40),
        ("digpt_b16_in1k", 300, 4096, 1.5e-4 * 16, 40),
        ("mae_b16_in1k", 1600, 4096, 1.5e-4 * 16, 40),
        ("mae_l16_in1k", 1600, 4096, 1.5e-4 * 16, 40),
        ("mae_h14_in1k", 1600, 4096, 1.5e-4 * 16, 40),
    ],
)
def test_epochs_of_imagenet_are_counted_in_images(
    name: str, epochs: int, batch: int, learning_rate: float, warmup_epochs: int
) -> None:
    config = recipe(name)
    assert config.samples_seen == epochs * IN1K_IMAGES
    assert config.global_batch_size == batch
    assert config.optimizer.learning_rate == pytest.approx(learning_rate)
    assert config.optimizer.warmup_fraction * epochs == pytest.approx(warmup_epochs, abs=0.01)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("igpt")])
def test_igpt_runs_a_million_steps_of_adam_after_an_epoch_of_warm_up(name: str) -> None:
    config = recipe(name)
    assert config.num_steps == 1_000_000 and config.global_batch_size == 128
    assert config.optimizer.weight_decay == 0
    assert config.optimizer.warmup_fraction * config.samples_seen == pytest.approx(IN1K_IMAGES, rel=1e-3)
    assert config.igpt.resolution == config.image_size
