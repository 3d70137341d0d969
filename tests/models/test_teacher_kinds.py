"""Teachers other than CLIP's towers: timm's, codebook vectors, pixels; and the choice between them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from arvis_scale.config import TeacherConfig
from arvis_scale.models.images import normalize
from arvis_scale.models.teachers import load_teacher, teacher_shape
from arvis_scale.models.teachers.timm_teacher import TimmTeacher
from arvis_scale.models.teachers.vq_model import VqAutoencoder, VqSize
from arvis_scale.models.teachers.vq_teacher import TrainedVq, train_vq

STUDENT = {"image_size": 32, "patch_size": 8}
VQ_SIZE = VqSize(image_size=16, patch_size=4, num_codes=8, code_width=6, width=16, depth=1)


def choose(**values: Any) -> Any:
    return load_teacher(TeacherConfig(**values), **STUDENT, device=torch.device("cpu"))


@pytest.fixture
def images() -> Tensor:
    """ImageNet-normalised, 3 x 3 x 32 x 32."""
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def small_vit(**options: Any) -> Any:
    import timm

    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 0}
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **{**sizes, **options})


@torch.no_grad()
def test_timm_tokens_are_the_class_token_and_the_patches_after_the_final_norm(images: Tensor) -> None:
    tower = small_vit(reg_tokens=4)
    teacher = TimmTeacher(tower)
    assert (teacher.width, teacher.grid) == (24, 4)
    tokens = teacher(images)
    # This architecture takes pixels x -> 2x - 1.
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = tower.forward_features((images * std + mean) * 2 - 1)
    torch.testing.assert_close(tokens, expected[:, [0, *range(5, 21)]], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_a_class_token_the_mean_of_the_patches_takes_its_place(images: Tensor) -> None:
    teacher = TimmTeacher(small_vit(class_token=False, global_pool="avg"))
    assert teacher.tower.norm.__class__ is torch.nn.Identity  # it comes after pooling
    tokens = teacher(images)
    assert tokens.shape == (3, 17, 24)
    torch.testing.assert_close(tokens[:, 0], tokens[:, 1:].mean(dim=1))
    torch.testing.assert_close(tokens[:, 1:].mean(dim=2), torch.zeros(3, 16), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a whole ViT with a classifier, as timm's hub has them."""
    import timm

    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), path)
    return path


def test_timm_file_loads_as_the_named_architecture_and_stays_frozen(timm_file: Path, images: Tensor) -> None:
    teacher = choose(kind="timm", checkpoint=str(timm_file), architecture="test_vit", precision="bf16")
    config = TeacherConfig(kind="timm", checkpoint=str(timm_file), architecture="test_vit")
    assert teacher_shape(config, **STUDENT) == (teacher.width, teacher.grid)
    stored = load_file(timm_file)
    for name, parameter in teacher.tower.named_parameters():
        assert torch.equal(parameter, stored[name].bfloat16()), name
        assert not parameter.requires_grad
    tokens = teacher(images)
    assert tokens.dtype == torch.bfloat16 and not tokens.requires_grad and not teacher.tower.training


def test_timm_weights_that_do_not_fit_are_named(timm_file: Path, tmp_path: Path) -> None:
    stored = load_file(timm_file)
    changed = {
        "blocks.1.mlp.fc1.weight": torch.zeros(5, 7),
        "blocks.2.norm1.weight": None,
        "extra": torch.zeros(1),
    }
    said = {
        "blocks.1.mlp.fc1.weight": "another architecture .*blocks.1.mlp.fc1.weight is 5 x 7, the model's 192 x 64",
        "blocks.2.norm1.weight": "lacks blocks.2.norm1.weight of timm's test_vit",
        "extra": "holds extra, which timm's test_vit has not",
    }
    for name, value in changed.items():
        kept = {**stored, name: value}
        path = tmp_path / "model.safetensors"
        save_file({key: tensor for key, tensor in kept.items() if tensor is not None}, path)
        with pytest.raises(ValueError, match=said[name]):
            choose(kind="timm", checkpoint=str(path), architecture="test_vit")


def test_pixel_tokens_are_normalised_patches_and_their_mean(images: Tensor) -> None:
    teacher = choose(kind="pixels")
    assert (teacher.width, teacher.grid) == (192, 4)
    tokens = teacher(images)
    patch = images[1, :, 8:16, 16:24].flatten()  # row 1, column 2 of the grid
    expected = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
    torch.testing.assert_close(tokens[1, 1 + 1 * 4 + 2], expected)
    torch.testing.assert_close(tokens[:, 0], tokens[:, 1:].mean(dim=1))


def two_colours(num_batches: int) -> Iterator[Tensor]:
    """Images whose patches are black or white, at random."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_batches):
        patches = torch.randint(0, 2, (16, 1, 4, 4), generator=generator, dtype=torch.uint8) * 255
        yield patches.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3).expand(-1, 3, -1, -1)


@pytest.fixture(scope="module")
def vq(tmp_path_factory: pytest.TempPathFactory) -> TrainedVq:
    return train_vq(two_colours(200), tmp_path_factory.mktemp("vq"), size=VQ_SIZE, learning_rate=3e-3)


def test_vq_learns_to_paint_what_its_codes_say(vq: TrainedVq) -> None:
    # The variance of these images is about 5; a grey image would be that far off.
    assert vq.reconstruction_error < 0.1
    assert vq.num_codes_used >= 2


@torch.no_grad()
def test_vq_tokens_are_the_nearest_codes_and_their_mean(vq: TrainedVq) -> None:
    teacher = choose(kind="vq", checkpoint=str(vq.folder))
    assert (teacher.width, teacher.grid) == (6, 4)
    assert teacher_shape(TeacherConfig(kind="vq", checkpoint=str(vq.folder)), **STUDENT) == (6, 4)
    [pixels] = two_colours(1)
    tokens = teacher(normalize(pixels))
    codes = load_file(vq.folder / "vq_model.safetensors")["codebook.codes"]
    assert (tokens[:, 1:, None] == codes).all(dim=3).any(dim=2).all()
    torch.testing.assert_close(tokens[:, 0], tokens[:, 1:].mean(dim=1))
    encoded = teacher.model.encoder(normalize(pixels)).flatten(2).transpose(1, 2)  # B x 16 x C
    to_chosen = (encoded - tokens[:, 1:]).square().sum(dim=2)
    to_all = (encoded[:, :, None] - codes).square().sum(dim=3)
    torch.testing.assert_close(to_chosen, to_all.min(dim=2).values)
    # Black and white patches have different codes.
    is_white = pixels[:, 0, ::4, ::4].flatten(1) > 0
    assert not (tokens[:, 1:][is_white][:1] == tokens[:, 1:][~is_white]).all(dim=1).any()


def test_vq_is_the_same_for_the_same_seed_and_leaves_the_global_generator(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_vq(two_colours(2), tmp_path / name, size=VQ_SIZE, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = ((tmp_path / name / "vq_model.safetensors").read_bytes() for name in "abc")
    assert first == again != other


def test_vq_encoder_gets_the_decoders_gradient_through_the_codes() -> None:
    torch.manual_seed(0)
    model = VqAutoencoder(VQ_SIZE)
    model.codebook.codes.normal_()
    [pixels] = two_colours(1)
    _, error, *_ = model(normalize(pixels))
    error.backward()  # the commitment loss is not in it
    gradient = model.encoder[0].weight.grad
    assert gradient is not None and gradient.abs().max() > 0


def test_what_is_no_teacher_is_refused_in_one_line(timm_file: Path, vq: TrainedVq, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "vq_config.json").write_text(json.dumps({"schema_version": 1, "image_size": "large"}))
    refused: list[tuple[dict[str, Any], str]] = [
        ({"checkpoint": str(tmp_path / "nowhere")}, "does not exist"),
        ({"checkpoint": str(timm_file)}, "bare file of weights; say whose with teacher.architecture="),
        (
            {"checkpoint": str(timm_file), "architecture": "ViT-H14"},
            "no architecture 'ViT-H14'; did you mean 'ViT-H-14'?",
        ),
        ({"kind": "timm", "checkpoint": str(timm_file)}, "needs teacher.architecture="),
        ({"kind": "timm", "checkpoint": str(tmp_path), "architecture": "test_vit"}, "no file of timm weights"),
        (
            {"kind": "timm", "checkpoint": str(timm_file), "architecture": "vit_bas_patch16_224"},
            "did you mean 'vit_base",
        ),
        ({"kind": "timm", "checkpoint": str(timm_file), "architecture": "resnet18"}, "is a ResNet; a teacher must be"),
        ({"kind": "vq", "checkpoint": str(tmp_path)}, "has no vq_config.json"),
        ({"kind": "vq", "checkpoint": str(tmp_path / "other")}, "must hold whole numbers"),
    ]
    for values, sentence in refused:
        with pytest.raises(ValueError, match=sentence.replace("?", r"\?")) as raised:
            choose(**values)
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="patch_size=5 does not divide image_size=16"):
        VqSize(image_size=16, patch_size=5)
    with pytest.raises(ValueError, match="no images"):
        train_vq([], tmp_path / "vq", size=VQ_SIZE)
    with pytest.raises(ValueError, match="images are 3 x 8 x 8, the VQ tokenizer takes 3 x 16 x 16"):
        train_vq([torch.zeros(1, 3, 8, 8, dtype=torch.uint8)], tmp_path / "vq", size=VQ_SIZE)
    assert not (tmp_path / "vq").exists()
