"""Checkpoints in as folders, encoders out as folders: what the files say and what reads them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from arvis_scale.config import RunConfig, TeacherConfig, build_config, load_config, save_config
from arvis_scale.data.build import build_shards
from arvis_scale.engine.result import probe_again
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.setup import encoder_of, objective_of
from arvis_scale.engine.weights.export import save_encoder
from arvis_scale.engine.weights.export_weights import export_encoder, load_run_encoder
from arvis_scale.engine.weights.import_weights import import_checkpoint
from arvis_scale.engine.weights.initial_weights import check_initial_weights, load_initial_weights
from arvis_scale.models.teachers import load_teacher, teacher_shape
from arvis_scale.models.teachers.identity import teacher_identity
from arvis_scale.planning.teachers import teacher_cost

SIZES: dict[str, Any] = {"objective": "xtra", "preset": "nano", "image_size": 32, "patch_size": 8}
BLOCKS = ["xtra.block_side=2"]


def config_of(folder: Path, **changes: Any) -> RunConfig:
    values = {"name": "run", "output": str(folder), "data.shards": "-", "samples_seen": 0, "xtra.block_side": 2}
    return build_config(values, {**SIZES, **changes}, "test")


def random_objective(folder: Path, seed: int = 3) -> Any:
    return objective_of(config_of(folder, seed=seed), None)


def to_released(ours: str) -> str:
    """The released name of one of our XTRA parameters."""
    for mine, theirs in (
        ("encoder.", "enc."),
        ("projection.fc1", "proj.mlp.0"),
        ("projection.fc2", "proj.mlp.2"),
        ("heads.0.fc1", "aim_proj.0.mlp.0"),
        ("heads.0.fc2", "aim_proj.0.mlp.2"),
    ):
        ours = ours.replace(mine, theirs) if ours.startswith(mine) else ours
    return ours


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A Lightning checkpoint of a small XTRA, and its weights under our names."""
    weights = random_objective(tmp_path).state_dict()
    path = tmp_path / "b16.ckpt"
    torch.save({"state_dict": {f"model.{to_released(name)}": value for name, value in weights.items()}}, path)
    return path, weights


def test_an_imported_checkpoint_is_a_folder_with_encoder_objective_and_source(
    tmp_path: Path, checkpoint: tuple[Path, dict[str, Tensor]]
) -> None:
    path, weights = checkpoint
    import_checkpoint(path, tmp_path / "imported", **SIZES, overrides=BLOCKS)
    folder = RunFolder(tmp_path / "imported")
    assert sorted(file.name for file in folder.path.iterdir()) == [
        "config.yaml",
        "encoder.safetensors",
        "objective.safetensors",
        "result.json",
    ]
    stored = load_file(folder.path / "objective.safetensors")
    assert stored.keys() == weights.keys()
    assert all(torch.equal(stored[name], value) for name, value in weights.items())
    result = folder.read_result()
    assert result["kind"] == "imported" and result["source"]["file"] == "b16.ckpt"
    encoder = load_run_encoder(folder.path)
    assert result["params_encoder"] == sum(parameter.numel() for parameter in encoder.parameters())
    for name, parameter in encoder.named_parameters():
        assert torch.equal(parameter, weights[f"encoder.{name}"])


def test_a_run_starts_from_imported_weights(tmp_path: Path, checkpoint: tuple[Path, dict[str, Tensor]]) -> None:
    path, weights = checkpoint
    import_checkpoint(path, tmp_path / "imported", **SIZES, overrides=BLOCKS)
    config = config_of(tmp_path / "run", initial_weights=str(tmp_path / "imported"))
    objective = objective_of(config, None)
    assert not torch.equal(objective.state_dict()["encoder.pos_embed"], weights["encoder.pos_embed"])
    load_initial_weights(objective, config)
    assert all(torch.equal(value, weights[name]) for name, value in objective.state_dict().items())

    other = config_of(tmp_path / "run", initial_weights=str(tmp_path / "imported"), preset="pico")
    with torch.device("meta"):
        model = objective_of(other, None)
    with pytest.raises(ValueError, match="encoder.pos_embed is 1 x 16 x 32, the model's 1 x 16 x 16"):
        check_initial_weights(model, other)
    nowhere = config_of(tmp_path / "run", initial_weights=str(tmp_path))
    with pytest.raises(ValueError, match="has no objective.safetensors; name a folder of `weights import`"):
        check_initial_weights(model, nowhere)


def test_an_imported_encoder_is_probed_and_exported_like_a_runs(
    tmp_path: Path, checkpoint: tuple[Path, dict[str, Tensor]]
) -> None:
    build_shards("digits", tmp_path / "digits")
    changes = [*BLOCKS, f"probe_data.shards={tmp_path / 'digits'}"]
    import_checkpoint(checkpoint[0], tmp_path / "imported", **SIZES, overrides=changes)
    accuracy = probe_again(tmp_path / "imported")["linear"]["accuracy"]
    assert accuracy > 0.3  # random features of ten digits; guessing gives 0.1
    export_encoder(tmp_path / "imported", tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text()
    assert f"accuracy {accuracy:.4f}" in card and "797 images of digits" in card
    assert "| imported from | b16.ckpt, SHA-256 " in card


def test_import_writes_nothing_when_something_is_wrong(
    tmp_path: Path, checkpoint: tuple[Path, dict[str, Tensor]]
) -> None:
    path, _ = checkpoint
    refused: list[tuple[dict[str, Any], str]] = [
        ({"objective": "aim"}, "no released checkpoints of 'aim'"),
        ({"preset": "nanoo"}, "did you mean 'nano'"),
        ({"preset": "pico"}, "encoder.pos_embed is 1 x 16 x 32, the model's 1 x 16 x 16"),
        ({"patch_size": 4}, "encoder.patch_embed.proj.weight is 32 x 3 x 8 x 8, the model's 32 x 3 x 4 x 4"),
        ({"patch_size": 5}, "patch_size=5 does not divide"),
        ({"overrides": ["xtra.block_sid=2"]}, "did you mean 'block_side'"),
    ]
    for changes, said in refused:
        with pytest.raises(ValueError, match=said) as raised:
            import_checkpoint(path, tmp_path / "imported", **{"overrides": BLOCKS, **SIZES, **changes})
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "imported").exists()
    with pytest.raises(ValueError, match="exists and holds something"):
        import_checkpoint(path, tmp_path, **SIZES)


def test_an_interrupted_import_leaves_no_folder(
    tmp_path: Path, checkpoint: tuple[Path, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", interrupted)  # the weights are written by then, the rest is not
    with pytest.raises(KeyboardInterrupt):
        import_checkpoint(checkpoint[0], tmp_path / "imports" / "one", **SIZES, overrides=BLOCKS)
    assert list((tmp_path / "imports").iterdir()) == []


def trained_run(folder: Path, **changes: Any) -> RunConfig:
    """A run folder as training leaves it, as far as export reads it."""
    config = config_of(folder, **changes)
    save_config(config, folder / "config.yaml")
    save_encoder(encoder_of(config).state_dict(), folder / "encoder.safetensors")
    probe = {"accuracy": 0.75, "accuracy_low": 0.7, "accuracy_high": 0.8, "num_test": 797}
    result = {
        "schema_version": 1,
        "pretrain_data": {"name": "digits", "hash": "abc123"},
        "probe_data": {"name": "digits", "hash": "def456"},
        "unique_images": 1000,
        "samples_seen": 16000,
        "probes": {"linear": probe},
    }
    (folder / "result.json").write_text(json.dumps(result))
    return config


@torch.no_grad()
@pytest.mark.parametrize("objective", ["xtra", "aim"])
def test_timm_loads_an_exported_folder_as_its_card_says(tmp_path: Path, objective: str) -> None:
    import timm

    trained_run(tmp_path / "run", objective=objective)
    export_encoder(tmp_path / "run", tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text()
    (code,) = [block.split("```")[0] for block in card.split("```python\n")[1:]]
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    names: dict[str, Any] = {"images": images, "timm": timm}
    exec(code.replace("FOLDER", str(tmp_path / "exported")), names)
    encoder: Any = load_run_encoder(tmp_path / "run")
    [tokens] = encoder.layer_outputs(images, [encoder.depth])
    torch.testing.assert_close(names["tokens"], encoder.norm(tokens), atol=1e-5, rtol=1e-5)
    assert ("**The mask must be passed.**" in card) == (objective == "xtra")
    for said in ("digits, content hash abc123", "| samples seen | 16,000 |", "accuracy 0.7500 (0.7000 to 0.8000)"):
        assert said in card


@torch.no_grad()
def test_an_exported_encoder_is_a_teacher(tmp_path: Path) -> None:
    trained_run(tmp_path / "run", objective="mae")
    export_encoder(tmp_path / "run", tmp_path / "exported")
    config = TeacherConfig(kind="timm", checkpoint=str(tmp_path / "exported"))
    sizes = {"image_size": 32, "patch_size": 8}
    teacher = load_teacher(config, **sizes, device=torch.device("cpu"))
    assert teacher_shape(config, **sizes) == (teacher.width, teacher.grid) == (32, 4)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    encoder: Any = load_run_encoder(tmp_path / "run")
    [tokens] = encoder(images)  # patches, then the class token
    torch.testing.assert_close(teacher(images), encoder.norm(tokens).roll(1, dims=1), atol=1e-5, rtol=1e-5)
    assert teacher_cost(config).forward_flops > 0
    before = teacher_identity(config)
    (tmp_path / "exported").rename(tmp_path / "moved")
    (tmp_path / "moved" / "README.md").write_text("another card")
    moved = TeacherConfig(kind="timm", checkpoint=str(tmp_path / "moved"))
    assert teacher_identity(moved) == before and before["architecture"] is None
    trained_run(tmp_path / "other", objective="mae", seed=7)
    export_encoder(tmp_path / "other", tmp_path / "others")
    assert teacher_identity(replace(moved, checkpoint=str(tmp_path / "others"))) != before
    with pytest.raises(ValueError, match="says itself what it holds; leave teacher.architecture=vit_tiny out"):
        teacher_shape(replace(moved, architecture="vit_tiny"), **sizes)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config.json": "{"}, "config.json is not valid JSON"),
        ({"config.json": '{"a": 1}'}, "names no architecture of timm's"),
        ({"config.json": '{"architecture": "vit_tiny_patch16_224"}'}, "has no model.safetensors"),
    ],
)
def test_a_folder_that_is_none_of_timms_says_why(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        teacher_shape(TeacherConfig(kind="timm", checkpoint=str(tmp_path)), image_size=32, patch_size=8)
    assert "\n" not in str(caught.value)


def test_an_exported_encoder_with_a_mask_is_no_teacher(tmp_path: Path) -> None:
    trained_run(tmp_path / "run", objective="xtra")
    export_encoder(tmp_path / "run", tmp_path / "exported")
    with pytest.raises(ValueError, match="with an attention mask"):
        teacher_shape(TeacherConfig(kind="timm", checkpoint=str(tmp_path / "exported")), image_size=32, patch_size=8)


@torch.no_grad()
def test_safetensors_export_loads_as_its_card_says(tmp_path: Path) -> None:
    trained_run(tmp_path / "run")
    export_encoder(tmp_path / "run", tmp_path / "exported", kind="safetensors")
    card = (tmp_path / "exported" / "README.md").read_text()
    (code,) = [block.split("```")[0] for block in card.split("```python\n")[1:]]
    names: dict[str, Any] = {"images": torch.randn(2, 3, 32, 32)}
    exec(code.replace("FOLDER", str(tmp_path / "exported")), names)
    encoder = load_run_encoder(tmp_path / "run")
    [expected] = encoder.layer_outputs(names["images"], [encoder.depth])
    assert torch.equal(names["tokens"], expected)
    assert load_config(str(tmp_path / "exported" / "config.yaml")).preset == "nano"


def test_export_writes_nothing_when_something_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config.yaml; name a completed run"):
        export_encoder(tmp_path, tmp_path / "exported")
    trained_run(tmp_path / "run")
    with pytest.raises(ValueError, match="--format 'tim' is not known; did you mean 'timm'"):
        export_encoder(tmp_path / "run", tmp_path / "exported", kind="tim")
    with pytest.raises(ValueError, match="exists and holds something"):
        export_encoder(tmp_path / "run", tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
