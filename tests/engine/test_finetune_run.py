"""A completed run fine-tuned: what is written, what is refused, what stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from arvis_scale.engine.finetune import FINETUNED_NAME, finetune_run
from arvis_scale.engine.run_folder import RunFolder

FEW = [
    "finetune.epochs=4",
    "finetune.warmup_epochs=1",
    "finetune.batch_size=32",
    "finetune.micro_batch_size=16",
    "finetune.learning_rate_per_256=1e-2",
    "finetune.crop_scale_min=0.5",
    "finetune.mixup=0",
    "finetune.cutmix=0",
]


def test_a_run_is_fine_tuned_measured_and_left_as_it_was(untrained_run: RunFolder) -> None:
    before, encoder = untrained_run.read_result(), untrained_run.encoder.read_bytes()
    result = finetune_run(untrained_run.path, [*FEW, "finetune.rand_augment=null", "finetune.erasing=0"])
    assert untrained_run.read_result() == {**before, "finetune": result}
    assert untrained_run.encoder.read_bytes() == encoder
    assert result["accuracy"] == result["correct"] / 797 > 0.2  # guessing gives 0.1
    assert result["accuracy_low"] < result["accuracy"] < result["accuracy_high"]
    assert (result["num_train"], result["num_steps"]) == (600, 75)
    assert result["settings"]["layer_decay"] == 0.65 and result["data"]["name"] == "digits"
    weights, frozen = load_file(untrained_run.path / FINETUNED_NAME), load_file(untrained_run.encoder)
    assert weights["head.weight"].shape == (10, 32)
    assert not np.array_equal(weights["encoder.blocks.0.mlp.fc1.weight"], frozen["blocks.0.mlp.fc1.weight"])


def test_the_augmentation_reaches_the_images(untrained_run: RunFolder) -> None:
    once = [*FEW, "finetune.epochs=1"]
    plain, augmented = ([*once, f"finetune.rand_augment={policy}"] for policy in ("null", "rand-m9-mstd0.5-inc1"))
    weights = []
    for overrides in (plain, plain, augmented):
        finetune_run(untrained_run.path, overrides)
        weights.append(load_file(untrained_run.path / FINETUNED_NAME)["head.weight"])
    assert np.array_equal(weights[0], weights[1]) and not np.array_equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.learning_rate=1", "optimizer.learning_rate=1: fine-tuning changes keys of finetune and probe_data"),
        ("finetune.batch_size=33", "finetune.batch_size=33 is not a multiple"),
        ("probe_data.shards=null", "names no probe_data.shards"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(untrained_run: RunFolder, override: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        finetune_run(untrained_run.path, [*FEW, override])
    assert "\n" not in str(raised.value) and "finetune" not in untrained_run.read_result()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a completed run"):
        finetune_run(tmp_path)
