"""Our objectives against tensors that the released implementations computed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from arvis_scale.models.digpt import Digpt
from arvis_scale.models.presets import EncoderSize
from arvis_scale.models.released import from_released, our_names
from arvis_scale.models.xtra import Xtra

Golden = Callable[[str], dict[str, Tensor]]


def group(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def assert_gradients_equal(model: nn.Module, objective: str, released: dict[str, Tensor]) -> None:
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    names = our_names(objective, released)
    assert set(names.values()) == set(ours)
    for name, our_name in names.items():
        got, expected = ours[our_name], released[name]
        assert got is not None
        difference = (got - expected).abs().max().item()
        assert difference <= 1e-4 * expected.abs().max().item(), f"{name}: {difference}"


@pytest.fixture
def xtra(golden: Golden) -> tuple[Xtra, dict[str, Tensor]]:
    tensors = golden("xtra_small.safetensors")
    model = Xtra(
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
    )
    model.load_state_dict(from_released("xtra", group(tensors, "weights.")))
    return model.eval(), tensors


def test_xtra_outputs_equal_the_released(xtra: tuple[Xtra, dict[str, Tensor]]) -> None:
    model, tensors = xtra
    images = tensors["input.images"]
    with torch.no_grad():
        [before_norm] = model.encoder.layer_outputs(images, [3])
        predictions = model.predict_blocks(images, num_blocks=16)
    torch.testing.assert_close(model.encoder.norm(before_norm), tensors["output.encoder_tokens"], atol=1e-5, rtol=0)
    torch.testing.assert_close(predictions, tensors["output.block_predictions"], atol=1e-5, rtol=0)


def test_xtra_targets_equal_the_released(golden: Golden) -> None:
    from arvis_scale.models.pixels import normalize_squares, to_squares

    tensors = golden("xtra_small.safetensors")
    targets = normalize_squares(to_squares(tensors["input.images"], 8)).values
    torch.testing.assert_close(targets, tensors["output.normalized_block_targets"], atol=1e-5, rtol=0)


def test_xtra_loss_and_every_gradient_equal_the_released(xtra: tuple[Xtra, dict[str, Tensor]]) -> None:
    model, tensors = xtra
    loss, _ = model({"images": tensors["input.images"]})
    loss.backward()
    torch.testing.assert_close(loss.detach(), tensors["output.loss"][0], atol=1e-5, rtol=0)
    assert_gradients_equal(model, "xtra", group(tensors, "grads."))


@pytest.fixture
def digpt(golden: Golden) -> tuple[Digpt, dict[str, Tensor]]:
    tensors = golden("digpt_small.safetensors")
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
    )
    model.load_state_dict(from_released("digpt", group(tensors, "weights.")))
    return model.eval(), tensors


def test_digpt_mask_and_positions_equal_the_released(digpt: tuple[Digpt, dict[str, Tensor]]) -> None:
    model, tensors = digpt
    assert torch.equal(model.mask, tensors["output.attention_mask"] == 0)
    class_position, positions = tensors["weights.pos_embed"].split([1, 196], dim=1)
    assert not class_position.any()
    torch.testing.assert_close(model.encoder.pos_embed, positions, atol=1e-6, rtol=0)
    decoder_positions = model.decoders["generative"].pos_embed
    torch.testing.assert_close(decoder_positions, tensors["weights.decoder_pos_embed"][:, 1:], atol=1e-6, rtol=0)


def test_digpt_outputs_equal_the_released(digpt: tuple[Digpt, dict[str, Tensor]]) -> None:
    model, tensors = digpt
    images, order = tensors["input.images"].float(), tensors["input.segment_order"]
    with torch.no_grad():
        predictions = model.predict_tokens(images, order)
        visible = model.student_segments[order[:, :-1]].flatten(1)
        layers = model.encoder(images, layers=[6, 12], token_order=visible, mask=model.mask)
    expected = {
        "output.encoder_layer_6": layers[0],
        "output.encoder_layer_12": layers[1],
        "output.generative_predictions": predictions["generative"],
        "output.discriminative_predictions": predictions["discriminative"],
    }
    for name, got in expected.items():
        torch.testing.assert_close(got, tensors[name], atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_digpt_losses_and_every_gradient_equal_the_released(digpt: tuple[Digpt, dict[str, Tensor]]) -> None:
    model, tensors = digpt
    loss, metrics = model(
        {
            "images": tensors["input.images"].float(),
            "teacher_tokens": tensors["input.teacher_tokens"].float(),
            "segment_order": tensors["input.segment_order"],
        }
    )
    loss.backward()
    generative, discriminative = tensors["output.ar_loss"][0], tensors["output.kd_loss"][0]
    torch.testing.assert_close(metrics["generative_loss"], generative, atol=1e-5, rtol=0)
    torch.testing.assert_close(metrics["discriminative_loss"], discriminative, atol=1e-5, rtol=0)
    torch.testing.assert_close(loss.detach(), generative + discriminative, atol=1e-5, rtol=0)
    assert_gradients_equal(model, "digpt", group(tensors, "grads."))
