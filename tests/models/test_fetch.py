"""Fetched weights: stored with their hash, read by teachers, refused when changed. The hub itself is stood in for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from arvis_scale.config import TeacherConfig
from arvis_scale.models.fetch import fetch_weights, read_fetched
from arvis_scale.models.teachers import Teacher, load_teacher, teacher_shape

STUDENT: dict[str, Any] = {"image_size": 32, "patch_size": 8}
TIMM_NAME = "timm:vit_tiny_patch16_224.augreg_in21k"


def teacher(**values: Any) -> Teacher:
    return load_teacher(TeacherConfig(**values), **STUDENT, device=torch.device("cpu"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Let huggingface_hub's download give a ViT of timm's; return what is asked of it."""
    import huggingface_hub
    import timm

    asked: list[tuple[str, str]] = []

    def download(repo_id: str, filename: str, *, cache_dir: str) -> str:
        asked.append((repo_id, filename))
        file = Path(cache_dir) / "blob"
        torch.manual_seed(0)
        save_file(timm.create_model("vit_tiny_patch16_224", num_classes=7).state_dict(), file)
        # The hub's cache holds links to content under other names.
        link = Path(cache_dir) / filename
        link.symlink_to(file)
        return str(link)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def test_timm_weights_are_stored_with_their_hash_and_fetched_once(tmp_path: Path, hub: list[tuple[str, str]]) -> None:
    fetched = fetch_weights(TIMM_NAME, tmp_path / "weights")
    folder = tmp_path / "weights" / "timm-vit_tiny_patch16_224.augreg_in21k"
    assert hub == [("timm/vit_tiny_patch16_224.augreg_in21k", "model.safetensors")]
    assert fetched == read_fetched(folder) == fetch_weights(TIMM_NAME, tmp_path / "weights")
    assert len(hub) == 1
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and "weights" in path.parts) == [
        "model.safetensors",
        "weights.json",
    ]
    record = json.loads((folder / "weights.json").read_text())
    assert record["architecture"] == "vit_tiny_patch16_224.augreg_in21k"
    assert record["num_bytes"] == (folder / "model.safetensors").stat().st_size
    # The teacher needs nothing but the folder.
    config = TeacherConfig(kind="timm", checkpoint=str(folder))
    loaded = teacher(kind="timm", checkpoint=str(folder))
    assert (loaded.width, loaded.grid) == teacher_shape(config, **STUDENT) == (192, 14)


def test_weights_that_changed_or_are_of_another_kind_are_refused(tmp_path: Path, hub: list[tuple[str, str]]) -> None:
    fetched = fetch_weights(TIMM_NAME, tmp_path)
    folder = str(fetched.file.parent)
    with pytest.raises(ValueError, match=f"holds {TIMM_NAME}; set teacher.kind=timm, it is open_clip"):
        teacher(checkpoint=folder)
    with pytest.raises(ValueError, match="not teacher.architecture=vit_small"):
        teacher(kind="timm", checkpoint=folder, architecture="vit_small")
    content = bytearray(fetched.file.read_bytes())
    content[-1] ^= 1
    fetched.file.write_bytes(content)
    with pytest.raises(ValueError, match=r"has changed since it was fetched \(SHA-256\)"):
        teacher(kind="timm", checkpoint=folder)
    fetched.file.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"bytes, not \d+; fetch timm:"):
        teacher(kind="timm", checkpoint=folder)


def test_open_clip_weights_keep_the_tags_statistics_and_activation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    sizes = {"image_size": 16, "patch_size": 4, "width": 32, "head_width": 16, "layers": 1}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 1, "layers": 1}
    model = {"embed_dim": 24, "vision_cfg": sizes, "text_cfg": text}
    torch.manual_seed(0)
    original = open_clip.model.CLIP(**model, quick_gelu=True)
    tag = {"hf_hub": "org/model/", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "quick_gelu": True}

    def download(config: dict[str, Any], cache_dir: str) -> str:
        assert config == tag
        torch.save(original.state_dict(), Path(cache_dir) / "open_clip_pytorch_model.bin")
        return str(Path(cache_dir) / "open_clip_pytorch_model.bin")

    monkeypatch.setattr(open_clip, "get_model_config", lambda name: model if name == "tiny" else None)
    monkeypatch.setattr(open_clip.pretrained, "get_pretrained_cfg", lambda name, known: tag if name == "tiny" else {})
    monkeypatch.setattr(open_clip.pretrained, "download_pretrained", download)
    fetched = fetch_weights("open_clip:tiny/tag", tmp_path)
    assert fetched.source == "org/model"
    loaded = teacher(checkpoint=str(tmp_path / "open_clip-tiny-tag"))
    assert (loaded.width, loaded.grid) == (24, 4)
    images = torch.rand(2, 3, 16, 16)
    imagenet, own = (
        (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        for mean, std in (((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), (tag["mean"], tag["std"]))
    )
    with torch.no_grad():
        expected = original.eval().encode_image(own)
    torch.testing.assert_close(loaded(imagenet)[:, 0], expected, atol=1e-5, rtol=1e-5)


def test_without_a_network_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("cannot find the requested files\nin the local cache")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(ValueError, match=f"{TIMM_NAME} could not be downloaded .* with a network") as raised:
        fetch_weights(TIMM_NAME, tmp_path)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ViT-H-14", "is no name of weights; expected open_clip:... or timm:..."),
        ("open_clip:ViT-H-14/laion2b_s32b_b79", "did you mean 'ViT-H-14/laion2b_s32b_b79k'?"),
        ("open_clip:ViT-H-14", "has no pretrained 'ViT-H-14'"),
        ("timm:vit_base_patch16_224.dinno", "did you mean 'vit_base_patch16_224.dino'?"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ValueError) as raised:
        fetch_weights(name, tmp_path)
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
