"""D-iGPT: what each prediction may see, order equivariance, ablation and the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from arvis_scale.models.build import build_objective
from arvis_scale.models.digpt import Digpt, resize_segments
from arvis_scale.models.pixels import to_squares

MakeBatch = Callable[..., dict[str, Tensor]]
Build = Callable[..., Digpt]
TEACHER = (6, 20)  # grid, width


@pytest.fixture
def build(perturb: Callable[..., None]) -> Build:
    """Return a maker of nano models for 16-pixel images."""

    def make(segment_side: int = 2, **options: Any) -> Digpt:
        model = build_objective(
            "digpt",
            preset="nano",
            image_size=16,
            patch_size=4,
            options={"segment_side": segment_side, **options},
            teacher_grid=TEACHER[0],
            teacher_width=TEACHER[1],
        )
        assert isinstance(model, Digpt)
        perturb(model)
        return model

    return make


def test_predictions_see_the_segments_up_to_their_own_place_and_never_the_last(
    build: Build, make_batch: MakeBatch
) -> None:
    model, order = build(), torch.tensor([[2, 0, 3, 1]])
    images = make_batch(num_images=1)["images"].requires_grad_()
    for name, tokens in model.predict_tokens(images, order).items():
        assert tokens.shape == (1, 13, 20)
        for token in range(13):
            place = min(token // 4, 2)  # the class token, last, sees what the last visible segment sees
            [gradient] = torch.autograd.grad(tokens[0, token].square().sum(), images, retain_graph=True)
            seen = to_squares(gradient, 8)[0].abs().sum(dim=1) > 0
            visible = set(order[0, : place + 1].tolist())
            assert seen.tolist() == [segment in visible for segment in range(4)], f"{name} token {token}"


def test_generative_queries_stand_at_the_next_segment_and_discriminative_ones_at_their_own(
    build: Build,
    make_batch: MakeBatch,
) -> None:
    model, images = build(), make_batch(num_images=1)["images"]
    before = model.predict_tokens(images, torch.tensor([[0, 1, 2, 3]]))
    # The last two segments swap: place 2 is asked for another next segment, and place 3 holds another segment.
    swapped = model.predict_tokens(images, torch.tensor([[0, 1, 3, 2]]))
    unchanged = {
        name: torch.isclose(before[name], swapped[name], atol=1e-6).all(dim=2)[0, :12].view(3, 4).all(dim=1).tolist()
        for name in before
    }
    assert unchanged == {"generative": [True, False, False], "discriminative": [True, True, False]}


def test_a_batch_is_its_images_each_in_its_own_order(build: Build, make_batch: MakeBatch) -> None:
    model, batch = build(), make_batch(teacher=TEACHER)
    batch["segment_order"] = torch.stack([torch.randperm(4) for _ in range(4)])
    losses, parts = model.image_losses(batch)
    torch.testing.assert_close(losses, parts["generative_loss"] + parts["discriminative_loss"])
    reversed_losses, _ = model.image_losses({key: value.flip(0) for key, value in batch.items()})
    torch.testing.assert_close(reversed_losses.flip(0), losses)
    for image in range(4):
        alone, _ = model.image_losses({key: value[image : image + 1] for key, value in batch.items()})
        torch.testing.assert_close(alone[0], losses[image])


def test_the_first_place_sees_itself_alone(
    build: Build,
    make_batch: MakeBatch,
) -> None:
    model, images = build(), make_batch(num_images=1)["images"]
    orders = [[1, 0, 2, 3], [1, 3, 0, 2], [1, 2, 3, 0]]
    first = [model.predict_tokens(images, torch.tensor([order]))["discriminative"][0, :4] for order in orders]
    torch.testing.assert_close(first[1], first[0])
    torch.testing.assert_close(first[2], first[0])


@pytest.mark.parametrize("name", ["generative", "discriminative"])
def test_a_decoder_alone_is_the_same_part_of_the_loss_and_nothing_of_the_other_exists(
    build: Build, make_batch: MakeBatch, name: str
) -> None:
    both, alone = build(), build(decoders=[name])
    kept = {key: value for key, value in both.state_dict().items() if "decoders" not in key or f".{name}." in f".{key}"}
    alone.load_state_dict(kept)
    batch = make_batch(teacher=TEACHER)
    loss, metrics = alone(batch)
    assert set(metrics) == {f"{name}_loss"}
    torch.testing.assert_close(loss.detach(), both(batch)[1][f"{name}_loss"])


def test_targets_are_the_asked_segments_in_order_and_the_class_token(build: Build, make_batch: MakeBatch) -> None:
    model, batch = build(), make_batch(teacher=TEACHER)
    order = torch.tensor([[2, 0, 3, 1]]).expand(4, -1)
    _, parts = model.image_losses({**batch, "segment_order": order})
    tokens = model.predict_tokens(batch["images"], order)
    patches = batch["teacher_tokens"][:, 1:].view(4, 6, 6, 20)
    segments = [patches[:, row : row + 3, column : column + 3].flatten(1, 2) for row in (0, 3) for column in (0, 3)]
    for name, places in {"generative": [0, 3, 1], "discriminative": [2, 0, 3]}.items():
        targets = torch.cat([segments[segment] for segment in places] + [batch["teacher_tokens"][:, :1]], dim=1)
        maps = tokens[name][:, :12].unflatten(1, (3, 2, 2)).permute(0, 1, 4, 2, 3)  # B x 3 x C x 2 x 2
        resized = [
            torch.nn.functional.interpolate(maps[:, place], size=3, mode="bilinear").flatten(2).mT for place in range(3)
        ]
        predictions = torch.cat([*resized, tokens[name][:, 12:]], dim=1)
        cosine = (predictions * targets).sum(-1) / (predictions.norm(dim=-1) * targets.norm(dim=-1))
        torch.testing.assert_close(parts[f"{name}_loss"], (2 - 2 * cosine).mean(1))


def test_resizing_keeps_a_constant_and_equal_sides_exactly() -> None:
    constant = torch.ones(2, 8, 5)
    torch.testing.assert_close(resize_segments(constant, 2, 3), torch.ones(2, 18, 5))
    tokens = torch.randn(2, 8, 5)
    assert torch.equal(resize_segments(tokens, 2, 2), tokens)


def test_teacher_tokens_of_another_shape_are_refused(build: Build, make_batch: MakeBatch) -> None:
    with pytest.raises(ValueError, match="teacher_tokens are 17 x 20 per image, the model was built for 37 x 20"):
        build()(make_batch(teacher=(4, 20)))


def test_a_decoder_is_named_once(build: Build) -> None:
    with pytest.raises(ValueError, match=r"decoders=\['generative', 'generative'\] must name one or both of"):
        build(decoders=["generative", "generative"])


def test_changing_a_later_segment_changes_no_earlier_prediction(build: Build, make_batch: MakeBatch) -> None:
    model, images, order = build(), make_batch(num_images=1)["images"], torch.tensor([[2, 0, 3, 1]])
    with torch.no_grad():
        before = model.predict_tokens(images, order)
        for place, segment in enumerate(order[0].tolist()):
            row, column = (8 * part for part in divmod(segment, 2))
            changed = images.clone()
            changed[:, :, row : row + 8, column : column + 8] += torch.randn(3, 8, 8)
            after = model.predict_tokens(changed, order)
            for name in before:
                *segments, class_token = (after[name] != before[name]).any(dim=2)[0].split([4, 4, 4, 1])
                assert [moved.any().item() for moved in segments] == [other >= place for other in range(3)]
                assert class_token.item() == (place < 3)


def test_transfer_reads_patch_tokens_with_full_attention_and_no_picture_is_made(
    build: Build, make_batch: MakeBatch
) -> None:
    model, images = build(), make_batch(num_images=1)["images"].requires_grad_()
    [tokens] = model.encoder.layer_outputs(images, [2])
    assert tokens.shape == (1, 16, 32)
    [gradient] = torch.autograd.grad(tokens[0, 0].square().sum(), images)
    assert (to_squares(gradient, 4)[0].abs().sum(dim=1) > 0).all()
    assert model.reconstruct(make_batch(teacher=TEACHER)) == {}
