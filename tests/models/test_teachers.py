"""The open_clip teacher and the small CLIP model that a laptop trains for it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from arvis_scale.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from arvis_scale.models.small_clip import SmallClip, train_small_clip
from arvis_scale.models.teachers import from_open_clip

CLASS_NAMES = ["red square", "green square", "blue square"]


def labelled_images() -> list[tuple[Tensor, Tensor]]:
    """Noise, brighter in the channel of the class, in two batches."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    images = torch.randint(0, 120, (60, 3, 16, 16), generator=generator, dtype=torch.uint8)
    images[torch.arange(60), labels] += 120
    return [(images[:40], labels[:40]), (images[40:], labels[40:])]


def train(destination: Path, **options: Any) -> SmallClip:
    sizes: dict[str, Any] = {"image_size": 16, "patch_size": 4, "width": 32, "depth": 2, "steps": 40}
    return train_small_clip(labelled_images(), CLASS_NAMES, destination, **{**sizes, **options})


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> SmallClip:
    return train(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def pixels() -> Tensor:
    """Pixel values in [0, 1], 5 x 3 x 16 x 16."""
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def imagenet_normalized(pixels: Tensor) -> Tensor:
    return (pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


def load_with_open_clip(folder: Path) -> Any:
    import open_clip

    return open_clip.create_model(f"local-dir:{folder}", require_pretrained=True).eval()


@torch.no_grad()
def test_class_token_is_open_clips_image_feature(small_clip: SmallClip, pixels: Tensor) -> None:
    teacher, model = from_open_clip(small_clip.folder), load_with_open_clip(small_clip.folder)
    assert (teacher.grid, teacher.width) == (4, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.visual.image_mean, model.visual.image_std))
    tokens = teacher(imagenet_normalized(pixels))
    assert tokens.shape == (5, 17, 32)
    torch.testing.assert_close(tokens[:, 0], model.encode_image((pixels - mean) / std), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_patch_tokens_are_open_clips_projected_like_the_class_token(small_clip: SmallClip, pixels: Tensor) -> None:
    teacher, model = from_open_clip(small_clip.folder), load_with_open_clip(small_clip.folder)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.visual.image_mean, model.visual.image_std))
    model.visual.output_tokens = True
    _, normed = model.visual((pixels - mean) / std)
    tokens = teacher(imagenet_normalized(pixels))
    torch.testing.assert_close(tokens[:, 1:], normed @ model.visual.proj, atol=1e-5, rtol=1e-5)


def test_images_of_another_size_are_resized_to_the_towers(small_clip: SmallClip) -> None:
    teacher = from_open_clip(small_clip.folder)
    constant = torch.tensor([0.5, -1.0, 2.0]).view(1, 3, 1, 1)
    small, large = (teacher(constant.expand(1, 3, side, side)) for side in (16, 24))
    torch.testing.assert_close(small, large, atol=1e-4, rtol=1e-4)


def test_tokens_serve_as_targets_of_a_loss_and_the_tower_stays_frozen(small_clip: SmallClip, pixels: Tensor) -> None:
    teacher = from_open_clip(small_clip.folder, dtype=torch.bfloat16)
    tokens = teacher(imagenet_normalized(pixels))
    assert tokens.dtype == torch.bfloat16 and not tokens.requires_grad
    prediction = torch.randn(5, 17, 32, requires_grad=True)
    torch.nn.functional.cosine_similarity(prediction, tokens.float(), dim=-1).sum().backward()
    assert prediction.grad is not None
    assert not teacher.tower.training and not any(parameter.requires_grad for parameter in teacher.tower.parameters())


def test_small_clip_tells_the_classes_apart_by_their_captions(small_clip: SmallClip) -> None:
    assert small_clip.chance == pytest.approx(1 / 3)
    assert small_clip.zero_shot_accuracy > 0.9


def test_small_clip_is_the_same_for_the_same_seed_and_leaves_the_global_generator(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    weights = [train(tmp_path / name, steps=2, seed=seed).folder for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = ((folder / "open_clip_model.safetensors").read_bytes() for folder in weights)
    assert first == again != other


def test_small_clip_refuses_a_tower_without_layers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="depth=0 of the small CLIP model must be at least 1"):
        train(tmp_path, depth=0)


@pytest.mark.parametrize("steps", [1, 10])
def test_a_training_of_any_length_ends(tmp_path: Path, steps: int) -> None:
    assert math.isfinite(train(tmp_path, steps=steps).loss)


def test_more_classes_than_a_step_takes_are_drawn_in_turn(tmp_path: Path) -> None:
    assert train(tmp_path, max_classes_per_step=2).zero_shot_accuracy > 0.9


def test_small_clip_refuses_classes_without_images_and_labels_without_names(tmp_path: Path) -> None:
    sizes = {"image_size": 16, "patch_size": 4, "steps": 1}
    with pytest.raises(ValueError, match="class 'white square' has no image"):
        train_small_clip(labelled_images(), [*CLASS_NAMES, "white square"], tmp_path, **sizes)
    with pytest.raises(ValueError, match="labels run from 0 to 2 for 2 class names"):
        train_small_clip(labelled_images(), CLASS_NAMES[:2], tmp_path, **sizes)
    with pytest.raises(ValueError, match="no labelled images"):
        train_small_clip([], CLASS_NAMES, tmp_path, **sizes)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_weights_loads_as_a_named_architecture(small_clip: SmallClip, pixels: Tensor, tmp_path: Path) -> None:
    import open_clip

    config = json.loads((small_clip.folder / "open_clip_config.json").read_text())
    (tmp_path / "test-tower.json").write_text(json.dumps(config["model_cfg"]))
    open_clip.add_model_config(tmp_path)
    file = small_clip.folder / "open_clip_model.safetensors"
    from_file = from_open_clip(file, architecture="test-tower")(imagenet_normalized(pixels))
    assert torch.equal(from_file, from_open_clip(small_clip.folder)(imagenet_normalized(pixels)))


def test_what_is_no_teacher_is_refused_in_one_line(small_clip: SmallClip, tmp_path: Path) -> None:
    config = json.loads((small_clip.folder / "open_clip_config.json").read_text())
    weights = (small_clip.folder / "open_clip_model.safetensors").read_bytes()

    def folder(name: str, config: dict[str, Any] | None, weights: bytes | None) -> Path:
        (tmp_path / name).mkdir()
        if config is not None:
            (tmp_path / name / "open_clip_config.json").write_text(json.dumps(config))
        if weights is not None:
            (tmp_path / name / "open_clip_model.safetensors").write_bytes(weights)
        return tmp_path / name

    wider = json.loads(json.dumps(config))
    wider["model_cfg"]["vision_cfg"]["width"] = 48
    averaging = json.loads(json.dumps(config))
    averaging["model_cfg"]["vision_cfg"]["pool_type"] = "avg"
    refused = {
        tmp_path / "nowhere": "does not exist",
        folder("no_config", None, weights): "has no open_clip_config.json",
        folder("no_weights", config, None): "does not load",
        folder("truncated", config, weights[:1000]): "does not load",
        folder("wider", wider, weights): "does not load",
        folder("averaging", averaging, weights): "pools by 'avg'",
    }
    for path, sentence in refused.items():
        with pytest.raises(ValueError, match=sentence) as raised:
            from_open_clip(path)
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="knows no architecture 'ViT-X'"):
        from_open_clip(small_clip.folder / "open_clip_model.safetensors", architecture="ViT-X")
