"""Teacher tokens that are stored once and replayed: the same views, the same loss, and no other run's tokens."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from arvis_scale.config import RunConfig, build_config, load_yaml, recipe_path
from arvis_scale.data.index import SampleTable
from arvis_scale.data.selection import select_images
from arvis_scale.data.shards import open_shards
from arvis_scale.data.token_records import DirectionError, decode, encode
from arvis_scale.engine.setup import (
    Preparation,
    load_teacher_of,
    objective_of,
    teacher_shape_of,
    train_batches,
    validation_batches,
)
from arvis_scale.engine.teacher_tokens import check_tokens
from arvis_scale.engine.tokenize import load_tokenization, tokenize

CPU = torch.device("cpu")
VIEWS = 3
NUM_DECODERS = 2
NUM_IMAGES = 16
RUN = {
    "name": "run",
    "output": "unused",
    "objective": "digpt",
    "preset": "nano",
    "global_batch_size": 8,
    "micro_batch_size": 8,
    "samples_seen": 64,
    "unique_images": NUM_IMAGES,
    "data.validation_images": 5,
    "data.horizontal_flip": 0.5,
}


@pytest.fixture(scope="session")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of timm's smallest transformer."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), path)
    return path


@pytest.fixture(scope="session")
def teachers(tower: Path) -> dict[str, dict[str, Any]]:
    """What a configuration says of each teacher."""
    timm_keys = {"teacher.kind": "timm", "teacher.architecture": "test_vit", "teacher.checkpoint": str(tower)}
    return {"pixels": {"teacher.kind": "pixels"}, "timm": timm_keys}


def make(shards: Path, folder: Path | None, changes: dict[str, Any], *, precision: str = "fp16") -> Path:
    """Store tokens for a run with `changes`; return their folder."""
    plan = load_tokenization(shards, "digits", overrides(changes), views=VIEWS, precision=precision, folder=folder)
    tokenize(plan)
    return plan.folder


def overrides(changes: dict[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in {**RUN, **changes}.items()]


@pytest.fixture(scope="session")
def stored(
    shards: Path, teachers: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """Return a maker of token folders by teacher and precision, each made once. Read-only."""
    folders: dict[tuple[str, str], Path] = {}

    def folder(teacher: str, precision: str) -> Path:
        if (teacher, precision) not in folders:
            destination = tmp_path_factory.mktemp("tokens") / f"{teacher}-{precision}"
            folders[teacher, precision] = make(shards, destination, teachers[teacher], precision=precision)
        return folders[teacher, precision]

    return folder


def config_of(shards: Path, **changes: Any) -> RunConfig:
    values = {**RUN, "data.shards": str(shards), **changes}
    return build_config(load_yaml(recipe_path("digits")), values, "test")


def batches_of(config: RunConfig, **where: int) -> Iterator[dict[str, Tensor]]:
    images = select_images(config.data, config.unique_images)
    return train_batches(config, images, **{"rank": 0, "start_step": 0, **where})


@pytest.mark.parametrize("teacher", ["pixels", "timm"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_loss_is_the_teachers_own_to_the_stated_error(
    shards: Path, stored: Callable[[str, str], Path], teachers: dict[str, Any], teacher: str, precision: str
) -> None:
    folder = stored(teacher, precision)
    replaying = config_of(shards, **{"teacher.tokens": str(folder)})
    model = objective_of(replaying, teacher_shape_of(replaying)).eval()
    prepare = Preparation(CPU, load_teacher_of(replaying, CPU))
    assert prepare.teacher is None
    in_the_loop = Preparation(CPU, load_teacher_of(config_of(shards, **teachers[teacher]), CPU))
    error = json.loads((folder / "tokens.json").read_text())["error"]
    images = select_images(replaying.data, replaying.unique_images)
    differences = []
    for batch in [*batches_of(replaying), *validation_batches(replaying, images, rank=0)]:
        with torch.no_grad():
            losses = [model.image_losses(prepare_with(batch))[0] for prepare_with in (prepare, in_the_loop)]
        differences += (losses[0] - losses[1]).abs().tolist()
    assert len(differences) == 64 + 5
    assert max(differences) <= 2 * NUM_DECODERS * error["largest"] + 2e-6
    assert error["largest"] < {"fp32": 1e-5, "fp16": 1e-3, "int8": 0.02}[precision]
    assert (max(differences) > 1e-6) == (precision != "fp32")


def test_epoch_e_sees_view_e_until_they_come_again(shards: Path, stored: Callable[[str, str], Path]) -> None:
    config = config_of(
        shards, samples_seen=NUM_IMAGES * (VIEWS + 1), **{"teacher.tokens": str(stored("pixels", "fp32"))}
    )
    stream = list(batches_of(config))
    pixels, seeds = (
        torch.cat([batch[name] for batch in stream]).unflatten(0, (VIEWS + 1, NUM_IMAGES))
        for name in ("images", "sample_seeds")
    )
    epochs = [{image.numpy().tobytes() for image in epoch} for epoch in pixels]
    assert epochs[VIEWS] == epochs[0]
    assert all(not epochs[0] & epochs[later] for later in range(1, VIEWS))
    assert len(seeds.unique()) == NUM_IMAGES * (VIEWS + 1)  # the model's own draws do not come again


@pytest.mark.parametrize(("world_size", "num_workers", "start_step"), [(1, 1, 0), (2, 0, 0), (4, 1, 3)])
def test_the_stream_depends_on_no_rank_worker_or_resume(
    shards: Path, stored: Callable[[str, str], Path], world_size: int, num_workers: int, start_step: int
) -> None:
    tokens = {"teacher.tokens": str(stored("timm", "int8"))}

    def stream(processes: int, workers: int, start: int) -> dict[str, Tensor]:
        spread = {"parallel.processes": processes, "micro_batch_size": 8 // processes, "data.num_workers": workers}
        config = config_of(shards, **tokens, **spread)
        batches = [batch for rank in range(processes) for batch in batches_of(config, rank=rank, start_step=start)]
        joined = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        order = joined["positions"].argsort()
        return {name: value[order] for name, value in joined.items()}

    whole = stream(1, 0, 0)
    assert whole["teacher_tokens"].dtype == torch.int8
    part = stream(world_size, num_workers, start_step)
    assert whole.keys() == part.keys()
    assert all(torch.equal(part[name], value[8 * start_step :]) for name, value in whole.items())


def test_a_killed_command_goes_on_with_the_files_that_are_missing(
    shards: Path, teachers: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arvis_scale.engine.tokenize.FILE_BYTES", 5 * VIEWS * 17 * 192 * 2)  # five images
    whole = make(shards, tmp_path / "whole", teachers["pixels"])
    plan = load_tokenization(
        shards, "digits", overrides(teachers["pixels"]), views=VIEWS, precision="fp16", folder=tmp_path / "killed"
    )

    def killed(part: str, done: int, total: int | None) -> None:
        if done > 6 * VIEWS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenize(plan, killed)
    names = {path.name for path in plan.folder.glob("*.npy") if "samples" not in path.name}
    assert names == {"train-000000.npy"}
    with pytest.raises(ValueError, match=r"has 1 of 5 files"):
        check(config_of(shards, **{"teacher.tokens": str(plan.folder)}))
    before = (plan.folder / "train-000000.npy").stat().st_mtime_ns
    tokenize(plan)
    assert (plan.folder / "train-000000.npy").stat().st_mtime_ns == before
    files = sorted(path.name for path in whole.iterdir())
    assert files == sorted(path.name for path in plan.folder.iterdir())
    assert all((whole / name).read_bytes() == (plan.folder / name).read_bytes() for name in files)


def check(config: RunConfig) -> None:
    check_tokens(config, select_images(config.data, config.unique_images))


def test_smaller_subsets_and_other_seeds_are_served_too(shards: Path, stored: Callable[[str, str], Path]) -> None:
    config = config_of(shards, unique_images=7, seed=5, **{"teacher.tokens": str(stored("timm", "fp16"))})
    check(config)
    next(batches_of(config))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": 40}, "made with image_size=32, the run has 40"),
        ({"data.crop_scale_min": 0.5}, "made with data.crop_scale_min=0.7, the run has 0.5"),
        ({"data.horizontal_flip": 0.0}, "data.horizontal_flip=0.5, the run has 0.0"),
        ({"teacher.kind": "pixels"}, "teacher.kind=timm, the run has pixels"),
        ({"teacher.architecture": "vit_tiny"}, "teacher.architecture=test_vit, the run has vit_tiny"),
        ({"teacher.precision": "bf16"}, "teacher.precision=fp32, the run has bf16"),
        ({"unique_images": 20}, "has none for 4 of the run's 20 train images"),
        ({"data.validation_images": 8}, "has none for 3 of the run's 8 validation images"),
    ],
)
def test_a_run_of_other_settings_is_refused_by_the_key(
    shards: Path, stored: Callable[[str, str], Path], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        check(config_of(shards, **{"teacher.tokens": str(stored("timm", "fp16")), **changes}))
    assert "\n" not in str(raised.value)


def test_other_weights_under_the_same_name_are_refused(
    shards: Path, tower: Path, teachers: dict[str, Any], tmp_path: Path
) -> None:
    copy = Path(shutil.copy(tower, tmp_path / "teacher.safetensors"))
    keys = {**teachers["timm"], "teacher.checkpoint": str(copy), "unique_images": 1, "data.validation_images": 1}
    folder = make(shards, tmp_path / "tokens", keys)
    check(config_of(shards, **keys, **{"teacher.tokens": str(folder)}))
    damaged = bytearray(copy.read_bytes())
    damaged[-1] ^= 1
    copy.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"made with teacher\.checkpoint=sha256:"):
        check(config_of(shards, **keys, **{"teacher.tokens": str(folder)}))


def test_patches_matter_to_raw_pixels_alone(shards: Path, stored: Callable[[str, str], Path]) -> None:
    check(config_of(shards, patch_size=4, **{"teacher.tokens": str(stored("timm", "fp16"))}))
    with pytest.raises(ValueError, match="made with patch_size=8, the run has 4"):
        check(config_of(shards, patch_size=4, **{"teacher.tokens": str(stored("pixels", "fp16"))}))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_cut_file_is_refused_before_the_run_and_named_within_it(
    shards: Path, stored: Callable[[str, str], Path], tmp_path: Path, num_workers: int
) -> None:
    folder = shutil.copytree(stored("pixels", "fp16"), tmp_path / "tokens")
    config = config_of(shards, **{"teacher.tokens": str(folder), "data.num_workers": num_workers})
    os.truncate(folder / "train-000000.npy", 1000)
    with pytest.raises(ValueError, match=r"train-000000\.npy has 1000 of \d+ bytes"):
        check(config)
    with pytest.raises(ValueError, match=r"train-000000\.npy is cut") as raised:
        list(batches_of(config))
    assert "\n" not in str(raised.value)


def test_sample_numbers_that_a_damaged_file_shifts_are_refused(
    shards: Path, stored: Callable[[str, str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(stored("pixels", "fp16"), tmp_path / "tokens"))
    samples = folder / "train.samples.npy"
    samples.write_bytes(samples.read_bytes().replace(b"}", b"} ", 1))
    with pytest.raises(ValueError, match=r"train\.samples\.npy cannot be read .1 bytes too many"):
        check(config_of(shards, **{"teacher.tokens": str(folder)}))


def test_a_folder_of_other_tokens_is_not_overwritten(
    shards: Path, stored: Callable[[str, str], Path], teachers: dict[str, Any], tmp_path: Path
) -> None:
    folder = shutil.copytree(stored("pixels", "fp16"), tmp_path / "tokens")
    with pytest.raises(ValueError, match="holds other tokens: seed was 0, now 1; choose another --output"):
        make(shards, folder, {**teachers["pixels"], "seed": 1})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        make(shards, tmp_path / "mine", teachers["pixels"])
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_the_total_is_stated_and_large_ones_ask(shards: Path, teachers: dict[str, Any]) -> None:
    changes = overrides(teachers["pixels"])
    few = load_tokenization(shards, "digits", changes, views=VIEWS, precision="fp16", folder=None)
    assert few.manifest.num_bytes == (NUM_IMAGES * VIEWS + 5) * 17 * 192 * 2
    assert "3 stored views of each image for 4.0 epochs of 16 images; from epoch 3 on they come again" in few.summary()
    few.check_size(confirmed=False)
    many = load_tokenization(shards, "digits", changes, views=1_000_000, precision="fp16", folder=None)
    assert "16 images x 1000000 views + 5 validation images, 17 x 192 in fp16 each" in many.summary()
    assert "(6,528 bytes): 104 GB" in many.summary()
    with pytest.raises(ValueError, match=r"104 GB is more than 10 GB; store it with --yes"):
        many.check_size(confirmed=False)
    many.check_size(confirmed=True)
    assert few.folder.parent == shards / "tokens" and few.folder != many.folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": "xtra"}, "objective=xtra has no teacher"),
        ({"teacher.kind": "timm", "teacher.checkpoint": "nowhere"}, "teacher.checkpoint=nowhere does not exist"),
    ],
)
def test_a_run_without_a_teacher_is_refused(shards: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_tokenization(shards, "digits", overrides(changes), views=1, precision="fp16", folder=None)


def test_any_numpy_reads_the_files(shards: Path, stored: Callable[[str, str], Path], teachers: dict[str, Any]) -> None:
    folder = stored("pixels", "int8")
    records = np.load(folder / "train-000000.npy", mmap_mode="r", allow_pickle=False)
    assert records.shape == (NUM_IMAGES, VIEWS)
    assert records["tokens"].shape == (NUM_IMAGES, VIEWS, 17, 192) and records["tokens"].dtype == np.int8
    images = select_images(config_of(shards, **teachers["pixels"]).data, NUM_IMAGES)
    assert np.load(folder / "train.samples.npy").tolist() == images.training_images().tolist()


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_an_image_that_cannot_be_read_is_met_by_policy(
    shards: Path, teachers: dict[str, Any], tmp_path: Path, policy: str
) -> None:
    damaged = shutil.copytree(shards, tmp_path / "shards")
    train = select_images(config_of(shards, **teachers["pixels"]).data, NUM_IMAGES)
    bad = int(train.training_images()[3])
    spoil(damaged, bad)
    changes = {**teachers["pixels"], "data.on_bad_sample": policy}
    if policy == "raise":
        with pytest.raises(ValueError, match="not_an_image"):
            make(damaged, tmp_path / "tokens", changes)
        return
    folder = make(damaged, tmp_path / "tokens", changes)
    assert json.loads((folder / "tokens.json").read_text())["done"]["train-000000.npy"]["bad_samples"] == [bad]
    # The image can be read again, its tokens are still missing.
    shutil.copytree(shards, damaged, dirs_exist_ok=True)
    config = config_of(damaged, **changes, **{"teacher.tokens": str(folder)})
    assert sum(batch["bad_samples"].sum().item() for batch in batches_of(config)) == 64 // NUM_IMAGES


def spoil(shards: Path, sample: int) -> None:
    """Write nonsense over the beginning of a training image."""
    split = open_shards(shards).split("train")
    number = split.shard_of(sample)
    table = SampleTable.open(shards / "train.samples")
    with open(shards / f"train-{number:06d}.tar", "r+b") as file:
        file.seek(int(table.offset[sample]))
        file.write(b"nonsense")


def tokens_of_a_transformer(kind: str) -> Tensor:
    """Random tokens, `4 x 50 x 64`, as vision transformers have them: a few tokens or channels far larger."""
    tokens = torch.randn(4, 50, 64, generator=torch.Generator().manual_seed(0))
    if kind == "tokens":
        tokens[:, ::25] *= 50
    if kind == "channels":
        tokens[:, :, :2] *= 20
    if kind == "cells":
        tokens[:, ::25, :2] *= 50
    return tokens


@pytest.mark.parametrize("kind", ["even", "tokens", "channels", "cells"])
def test_int8_keeps_directions_beside_outliers(kind: str) -> None:
    tokens = tokens_of_a_transformer(kind)
    fields = encode(tokens, "int8")
    assert fields["tokens"].dtype == torch.int8
    assert DirectionError.between(tokens, decode(fields)).largest < 0.012
    norms = decode(fields).norm(dim=2) / tokens.norm(dim=2)
    assert (norms - 1).abs().max() < 0.01


def test_zero_tokens_stay_zero() -> None:
    tokens = tokens_of_a_transformer("even")
    tokens[0, 3], tokens[:, :, 5] = 0, 0
    restored = decode(encode(tokens, "int8"))
    assert torch.isfinite(restored).all()
    assert restored[0, 3].abs().max() == 0 and restored[:, :, 5].abs().max() == 0


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_twice_the_stated_error_bounds_the_loss_of_any_prediction(precision: str) -> None:
    tokens = tokens_of_a_transformer("channels")
    stored = decode(encode(tokens, precision))
    error = DirectionError.between(tokens, stored)
    away = tokens - stored  # predictions that the error hurts most
    for predictions in (away, torch.randn(4, 50, 64), tokens):
        losses = [2 - 2 * torch.cosine_similarity(predictions, targets, dim=2) for targets in (tokens, stored)]
        assert (losses[0] - losses[1]).abs().max() <= 2 * error.largest + 1e-6
        assert (losses[0] - losses[1]).abs().mean() <= 2 * error.mean + 1e-6


def test_tokens_that_a_precision_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="too large for fp16"):
        encode(torch.full((1, 2, 3), 1e5), "fp16")
    for precision in ("fp16", "int8", "fp32"):
        with pytest.raises(ValueError, match="not finite"):
            encode(torch.tensor([[[1.0, float("nan")]]]), precision)
