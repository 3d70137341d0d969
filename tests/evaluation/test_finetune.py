"""Fine-tuning trains all of the encoder, each layer at its own rate, and learns what is there to learn."""

from __future__ import annotations

from itertools import chain, repeat

import pytest
import torch
from torch import Tensor

from arvis_scale.config.finetune import FinetuneConfig
from arvis_scale.evaluation.finetune import Classifier, finetune, learning_rate, parameter_groups, predictions
from arvis_scale.models.build import build_objective
from arvis_scale.models.encoder import Backbone

CPU = torch.device("cpu")
SMALL = {"epochs": 10, "warmup_epochs": 1, "batch_size": 16, "micro_batch_size": 8, "learning_rate_per_256": 2e-2}
PLAIN = {"rand_augment": None, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0, "drop_path": 0.0, "label_smoothing": 0.0}


def encoder(preset: str = "nano") -> Backbone:
    torch.manual_seed(0)
    return build_objective("xtra", preset=preset, image_size=32, patch_size=8, options={"block_side": 2}).encoder


def batch(num_images: int, seed: int = 0) -> dict[str, Tensor]:
    """Noise of one of two brightnesses, which is the label."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (num_images,), generator=generator)
    images = torch.randint(0, 128, (num_images, 3, 32, 32), generator=generator)
    images = (images + 100 * labels[:, None, None, None]).to(torch.uint8)
    return {"images": images, "labels": labels, "sample_seeds": torch.arange(num_images) + 1000 * seed}


def trained(config: FinetuneConfig, num_steps: int, **options: str) -> Classifier:
    model = Classifier(encoder(), 2, drop_path=config.drop_path)
    batches = (batch(config.micro_batch_size, seed) for seed in range(10_000))
    finetune(model, batches, config, num_steps=num_steps, device=CPU, **options)
    return model


@pytest.mark.parametrize("changes", [PLAIN, {}])
def test_classes_that_differ_are_learned(changes: dict[str, float]) -> None:
    model = trained(FinetuneConfig(**{**SMALL, **changes}), 60)
    predicted, labels = predictions(model, iter([batch(50, 10_001), batch(7, 10_002)]), CPU)
    assert len(predicted) == 57 and (predicted == labels).mean() > 0.9
    before, after = (list(which.blocks.parameters()) for which in (encoder(), model.encoder))
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_the_same_call_gives_the_same_weights() -> None:
    first, again = (trained(FinetuneConfig(**SMALL), 3).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_micro_batches_make_no_difference() -> None:
    images = batch(16)
    results = []
    for micro_batch_size in (16, 4):
        config = FinetuneConfig(**{**SMALL, "micro_batch_size": micro_batch_size})
        parts = [{name: part.split(micro_batch_size) for name, part in images.items()}]
        micro = [dict(zip(parts[0], values, strict=True)) for values in zip(*parts[0].values(), strict=True)]
        model = Classifier(encoder(), 2, drop_path=config.drop_path)
        finetune(model, chain.from_iterable(repeat(micro)), config, num_steps=3, device=CPU)
        results.append(model.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-4, atol=1e-5)


def test_layers_below_learn_more_slowly_and_one_dimension_does_not_decay() -> None:
    model = Classifier(encoder(preset="micro"), 3, drop_path=0.1)
    groups = parameter_groups(model, layer_decay=0.5, weight_decay=0.05)
    found = {id(parameter): group for group in groups for parameter in group["params"]}  # type: ignore[attr-defined]
    assert set(found) == {id(parameter) for parameter in model.parameters()}
    scales = {name: found[id(parameter)]["lr_scale"] for name, parameter in model.named_parameters()}
    assert scales["head.weight"] == scales["norm.bias"] == 1
    assert scales["encoder.blocks.3.attn.qkv.weight"] == 0.5 and scales["encoder.blocks.0.norm1.bias"] == 0.5**4
    assert scales["encoder.patch_embed.proj.weight"] == scales["encoder.pos_embed"] == 0.5**5
    for parameter in model.parameters():
        assert found[id(parameter)]["weight_decay"] == (0.05 if parameter.dim() > 1 else 0.0)


def test_stochastic_depth_grows_over_depth() -> None:
    model = Classifier(encoder(preset="micro"), 3, drop_path=0.3)
    assert [block.drop_path for block in model.encoder.blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_the_learning_rate_warms_up_and_falls() -> None:
    config = FinetuneConfig(epochs=10, warmup_epochs=2, batch_size=512, micro_batch_size=64)
    rates = [learning_rate(config, course) for course in (0, 0.1, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0, 1e-4, 2e-4, (2e-4 + 1e-6) / 2, 1e-6])


def test_bf16_learns_too() -> None:
    model = trained(FinetuneConfig(**{**SMALL, **PLAIN}), 60, precision="bf16")
    predicted, labels = predictions(model, iter([batch(50, 10_001)]), CPU)
    assert (predicted == labels).mean() > 0.9
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"micro_batch_size": 3, "batch_size": 9}, "finetune.micro_batch_size=3 is odd"),
        ({"batch_size": 100}, "finetune.batch_size=100 is not a multiple of finetune.micro_batch_size=64"),
        ({"layer_decay": 0.0}, "finetune.layer_decay=0.0"),
        ({"epochs": 2}, "finetune.warmup_epochs=5 is more than finetune.epochs=2"),
        ({"mixup": -1.0}, "finetune.mixup=-1.0"),
        ({"drop_path": 1.0}, "finetune.drop_path=1.0"),
    ],
)
def test_bad_values_are_named(changes: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FinetuneConfig(**changes).validate()  # type: ignore[arg-type]
