"""Import of the released implementations' weights: names, containers, exact manifests, refusals."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from arvis_scale.models.build import build_objective
from arvis_scale.models.digpt import Digpt
from arvis_scale.models.objective import Objective
from arvis_scale.models.presets import EncoderSize
from arvis_scale.models.released import from_released, our_names, weights_of
from arvis_scale.models.weight_files import read_weights
from arvis_scale.models.xtra import Xtra

Golden = Callable[[str], dict[str, Tensor]]
Shapes = Iterator[tuple[str, tuple[int, ...]]]


def test_digpt_decoders_are_crossed_back() -> None:
    names = our_names("digpt", ["ar_token", "kd_enc2dec.weight", "kd_enc_norm.3.bias", "ar_enc2dec.weight", "mask"])
    assert names == {
        "ar_token": "decoders.generative.query_token",
        "kd_enc2dec.weight": "decoders.generative.tap_proj.weight",
        "kd_enc_norm.3.bias": "decoders.generative.tap_norm.bias",
        "ar_enc2dec.weight": "decoders.discriminative.tap_proj.weight",
    }


def test_copies_of_the_shared_norm_that_differ_are_refused() -> None:
    state = {"ar_enc_norm.0.weight": torch.ones(4), "ar_enc_norm.1.weight": torch.zeros(4)}
    with pytest.raises(ValueError, match=r"'ar_enc_norm.1.weight' differs from the other copies"):
        from_released("digpt", state)


@pytest.mark.parametrize(("objective", "name"), [("xtra", "enc_norm.weight"), ("digpt", "enc.norm.weight")])
def test_a_name_of_another_model_is_refused(objective: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is no parameter of the released {objective}"):
        our_names(objective, [name])


# The released modules' parameters as the methods describe them: names of the golden files, shapes by arithmetic.


def linear(name: str, rows: int, columns: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)


def norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def attention(name: str, width: int) -> Shapes:
    yield from linear(f"{name}.qkv", 3 * width, width)
    yield from linear(f"{name}.proj", width, width)


def mlp(name: str, width: int) -> Shapes:
    yield from linear(f"{name}.fc1", 4 * width, width)
    yield from linear(f"{name}.fc2", width, 4 * width)


def layers(name: str, width: int, depth: int) -> Shapes:
    for layer in range(depth):
        yield from norm(f"{name}.{layer}.norm1", width)
        yield from attention(f"{name}.{layer}.attn", width)
        yield from norm(f"{name}.{layer}.norm2", width)
        yield from mlp(f"{name}.{layer}.mlp", width)


def patch_embedding(name: str, width: int, patch: int) -> Shapes:
    yield f"{name}.proj.weight", (width, 3, patch, patch)
    yield f"{name}.proj.bias", (width,)


def xtra_manifest(
    *, width: int, depth: int, patch: int, grid: int, block: int, hidden: int, predictor: tuple[int, int], head: int
) -> Shapes:
    """Groups enc, proj, predictor and aim_proj.0; `predictor`: width and depth."""
    out, predictor_depth = predictor
    yield from patch_embedding("enc.patch_embed", width, patch)
    yield "enc.pos_embed", (1, grid * grid, width)
    yield from layers("enc.blocks", width, depth)
    yield from norm("enc.norm", width)
    yield from linear("proj.mlp.0", hidden, width)
    yield from linear("proj.mlp.2", out, hidden, bias=False)
    yield "predictor.pos_embed", (1, grid * grid, out)
    yield from layers("predictor.blocks", out, predictor_depth)
    yield from norm("predictor.norm", out)
    yield from linear("aim_proj.0.mlp.0", head, out * block * block)
    yield from linear("aim_proj.0.mlp.2", 3 * (patch * block) ** 2, head)


def digpt_manifest(*, width: int, depth: int, patch: int, grid: int, decoder: int, teacher: int) -> Shapes:
    """Decoders of two layers and four taps, whose shared norm the state dict repeats; fixed positions and mask."""
    yield from patch_embedding("patch_embed", width, patch)
    yield "cls_token", (1, 1, width)
    yield "pos_embed", (1, 1 + grid * grid, width)
    yield "decoder_pos_embed", (1, 1 + grid * grid, decoder)
    yield from layers("blocks", width, depth)
    for name in ("ar", "kd"):
        yield f"{name}_token", (1, 1, decoder)
        for tap in range(4):
            yield from norm(f"{name}_enc_norm.{tap}", width)
        yield from linear(f"{name}_enc2dec", 2 * decoder, 4 * width)
        for layer in range(2):
            block = f"{name}_blocks.{layer}"
            for part in ("norm1", "norm2", "norm2_1", "norm2_2"):
                yield from norm(f"{block}.{part}", decoder)
            yield from attention(f"{block}.attn1", decoder)
            yield from linear(f"{block}.attn2.q", decoder, decoder)
            yield from linear(f"{block}.attn2.kv", 2 * decoder, decoder)
            yield from linear(f"{block}.attn2.proj", decoder, decoder)
            yield from mlp(f"{block}.mlp", decoder)
        yield from norm(f"{name}_norm", decoder)
        yield from linear(f"{name}_pred", teacher, decoder)


XTRA_B16 = partial(
    xtra_manifest, width=768, depth=12, patch=16, grid=16, block=4, hidden=4096, predictor=(768, 8), head=6144
)
XTRA_H14 = partial(
    xtra_manifest, width=1280, depth=32, patch=14, grid=16, block=4, hidden=5120, predictor=(640, 8), head=9408
)
XTRA_GOLDEN = partial(xtra_manifest, width=48, depth=3, patch=4, grid=8, block=2, hidden=64, predictor=(40, 2), head=96)
DIGPT_B16 = partial(digpt_manifest, width=768, depth=12, patch=16, grid=14, decoder=1024, teacher=1024)
DIGPT_GOLDEN = partial(digpt_manifest, width=24, depth=12, patch=16, grid=14, decoder=16, teacher=1024)


def test_the_manifests_are_the_golden_files_own(golden: Golden) -> None:
    for name, manifest in (("xtra", XTRA_GOLDEN()), ("digpt", DIGPT_GOLDEN())):
        stored = group(golden(f"{name}_small.safetensors"), "weights.")
        stored.pop("mask", None)
        assert {key: tuple(tensor.shape) for key, tensor in stored.items()} == dict(manifest)


def objective_on_meta(name: str, preset: str, image_size: int, patch_size: int, **options: Any) -> Objective:
    teacher = {"teacher_width": 1024, "teacher_grid": 16} if name == "digpt" else {}
    sizes = {"preset": preset, "image_size": image_size, "patch_size": patch_size}
    with torch.device("meta"):
        return build_objective(name, **sizes, **teacher, options=options)


@pytest.mark.parametrize(
    ("name", "arguments", "manifest", "parameters"),
    [
        ("xtra", ("B", 256, 16), XTRA_B16(), 300_053_248),
        ("xtra", ("H", 224, 14), XTRA_H14(), 865_018_240),
        ("digpt", ("B", 224, 16), DIGPT_B16(), 167_536_128),
    ],
)
def test_the_released_models_manifests_are_matched_exactly(
    name: str, arguments: tuple[str, int, int], manifest: Shapes, parameters: int
) -> None:
    released = {key: torch.empty(shape, device="meta") for key, shape in manifest}
    fixed = {"pos_embed", "decoder_pos_embed"}
    model = objective_on_meta(name, *arguments)
    names = our_names(name, released)
    assert names.keys() == released.keys() - fixed
    shapes = {names[key]: tensor.shape for key, tensor in released.items() if key in names}
    assert shapes == {key: tensor.shape for key, tensor in model.state_dict().items()}
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def group(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def golden_xtra() -> Xtra:
    return Xtra(
        size=EncoderSize(width=48, depth=3, num_heads=3, mlp_hidden=192),
        image_size=32,
        patch_size=4,
        block_side=2,
        projection_hidden=64,
        predictor_width=40,
        predictor_depth=2,
        predictor_heads=4,
        head_hidden=96,
        drop_path=0.0,
    ).eval()


def lightning(state: dict[str, Tensor], path: Path) -> Path:
    """A checkpoint as Lightning writes it, of a module that torch.compile wrapped."""
    prefixed = {f"model._orig_mod.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": prefixed, "epoch": 799, "global_step": 490_400, "optimizer_states": [{}]}, path)
    return path


def deepspeed(state: dict[str, Tensor], path: Path) -> Path:
    """mp_rank_00_model_states.pt as DeepSpeed writes it around a wrapped module."""
    module = {f"module.model.{name}": tensor for name, tensor in state.items()}
    torch.save({"module": module, "optimizer": None, "ds_version": "0.9.5", "dp_world_size": 8}, path)
    return path


def mae_family(state: dict[str, Tensor], path: Path) -> Path:
    """A checkpoint as the code that D-iGPT descends from writes it, its command line inside."""
    torch.save({"model": state, "optimizer": {}, "epoch": 299, "args": argparse.Namespace(blr=1.5e-4)}, path)
    return path


@pytest.mark.parametrize("container", [lightning, deepspeed])
def test_golden_xtra_from_a_container_gives_the_golden_outputs(
    golden: Golden, tmp_path: Path, container: Callable[[dict[str, Tensor], Path], Path]
) -> None:
    tensors = golden("xtra_small.safetensors")
    path = container(group(tensors, "weights."), tmp_path / "checkpoint.ckpt")
    model = golden_xtra()
    model.load_state_dict(weights_of(model, "xtra", read_weights(path), source=str(path)))
    with torch.no_grad():
        loss, _ = model({"images": tensors["input.images"]})
        predictions = model.predict_blocks(tensors["input.images"], num_blocks=16)
    torch.testing.assert_close(predictions, tensors["output.block_predictions"], atol=1e-5, rtol=0)
    torch.testing.assert_close(loss, tensors["output.loss"][0], atol=1e-5, rtol=0)


def test_golden_digpt_from_its_container_gives_the_golden_outputs(golden: Golden, tmp_path: Path) -> None:
    tensors = golden("digpt_small.safetensors")
    path = mae_family(group(tensors, "weights."), tmp_path / "checkpoint-299.pth")
    model = Digpt(
        size=EncoderSize(width=24, depth=12, num_heads=3, mlp_hidden=96),
        image_size=224,
        patch_size=16,
        segment_side=7,
        decoders=["generative", "discriminative"],
        decoder_width=16,
        decoder_depth=2,
        decoder_heads=4,
        teacher_width=1024,
        teacher_grid=16,
    ).eval()
    model.load_state_dict(weights_of(model, "digpt", read_weights(path), source=str(path)))
    with torch.no_grad():
        predictions = model.predict_tokens(tensors["input.images"].float(), tensors["input.segment_order"])
    for name, prediction in predictions.items():
        torch.testing.assert_close(prediction, tensors[f"output.{name}_predictions"], atol=1e-5, rtol=0)


def random_state(manifest: Shapes) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in manifest}


def test_learned_positions_are_resampled_to_another_image_size() -> None:
    from timm.layers import resample_abs_pos_embed

    state = random_state(XTRA_GOLDEN())
    larger = Xtra(
        size=EncoderSize(width=48, depth=3, num_heads=3, mlp_hidden=192),
        image_size=48,
        patch_size=4,
        block_side=2,
        projection_hidden=64,
        predictor_width=40,
        predictor_depth=2,
        predictor_heads=4,
        head_hidden=96,
        drop_path=0.0,
    )
    weights = weights_of(larger, "xtra", state, source="a")
    for ours, released in (("encoder.pos_embed", "enc.pos_embed"), ("predictor.pos_embed", "predictor.pos_embed")):
        assert weights[ours].shape[1] == 144
        expected = resample_abs_pos_embed(state[released], [12, 12], num_prefix_tokens=0)
        assert torch.equal(weights[ours], expected)
    same = weights_of(golden_xtra(), "xtra", state, source="a")
    assert torch.equal(same["encoder.pos_embed"], state["enc.pos_embed"])


def test_fixed_positions_that_are_not_fixed_are_refused() -> None:
    state = random_state(DIGPT_GOLDEN())
    with pytest.raises(ValueError, match="pos_embed is not the fixed sine-cosine table of D-iGPT"):
        weights_of(objective_on_meta("digpt", "Ti", 224, 16), "digpt", state, source="a")


def test_weights_that_do_not_fit_are_named_with_both_shapes() -> None:
    state = random_state(XTRA_GOLDEN())
    model = objective_on_meta("xtra", "nano", 32, 4, block_side=2)
    with pytest.raises(ValueError, match="file holds another architecture than this xtra: encoder.pos_embed is 1 x 64"):
        weights_of(model, "xtra", state, source="file")
    kept = {name: tensor for name, tensor in state.items() if "blocks.1" not in name}
    with pytest.raises(ValueError, match="file lacks encoder.blocks.1.norm1.weight, .* and 21 more of this xtra"):
        weights_of(golden_xtra(), "xtra", kept, source="file")
    more = {**state, "enc.blocks.3.norm1.weight": torch.zeros(48)}
    with pytest.raises(ValueError, match="file holds encoder.blocks.3.norm1.weight, which this xtra has not"):
        weights_of(golden_xtra(), "xtra", more, source="file")


class RunsCode:
    """Unpickled, it makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.made,)


def test_a_file_that_runs_code_is_refused_until_it_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"enc.norm.weight": torch.ones(2)}, "config": RunsCode(tmp_path / "made")}, path)
    with pytest.raises(ValueError, match="a.ckpt needs .*pathlib.* say --trust-pickle") as raised:
        read_weights(path)
    assert "\n" not in str(raised.value) and not (tmp_path / "made").exists()
    assert read_weights(path, trust_pickle=True).keys() == {"enc.norm.weight"}
    assert (tmp_path / "made").exists()


def test_what_is_no_file_of_weights_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save({"state_dict": {}, "epoch": 1}, tmp_path / "empty.ckpt")
    torch.save([1, 2], tmp_path / "list.pt")
    whole = (tmp_path / "empty.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    for name, said in {
        "nowhere.ckpt": "do not exist",
        "text.ckpt": "is no torch checkpoint|does not load|needs",
        "text.safetensors": "does not load",
        "empty.ckpt": "holds no weights",
        "list.pt": "holds no weights",
        "cut.ckpt": "does not load|is no torch checkpoint",
    }.items():
        with pytest.raises(ValueError, match=said) as raised:
            read_weights(tmp_path / name)
        assert "\n" not in str(raised.value)
