"""Runs from stored teacher tokens: without the teacher, the same losses however they are spread."""

import pytest
import torch
from safetensors.torch import save_file

from arvis_scale.engine.run_folder import RunFolder

pytestmark = pytest.mark.processes

# As in test_same_losses: sums in another order.
TOLERANCE = 1e-6
DIGPT = {"objective": "digpt"}
SPREADS = {
    1: {"zero1": {}},
    2: {
        "zero3": {"parallel.strategy": "zero3", "micro_batch_size": 8},
        "pipeline": {"parallel.strategy": "pipeline", "parallel.stages": 2, "micro_batch_size": 8},
    },
}


def test_stored_tokens_train_without_the_teacher_on_any_layout(
    tmp_path, digits, arvis_scale, write_run, train_together, curve
):
    import timm

    torch.manual_seed(0)
    weights, tokens = tmp_path / "teacher.safetensors", tmp_path / "tokens"
    save_file(timm.create_model("test_vit").state_dict(), weights)
    teacher = ["teacher.kind=timm", "teacher.architecture=test_vit", f"teacher.checkpoint={weights}"]
    subset = ["unique_images=100", "data.validation_images=37"]
    made = arvis_scale(
        "shards",
        "tokenize",
        digits,
        "digits",
        *teacher,
        *subset,
        "--views",
        2,
        "--precision",
        "int8",
        "--output",
        tokens,
    )
    assert made.returncode == 0, made.stderr
    assert "100 images x 2 views + 37 validation images" in made.stdout
    in_the_loop = {key: value for key, _, value in (option.partition("=") for option in teacher)}
    for processes, spreads in SPREADS.items():
        paths = [
            write_run(
                tmp_path / name, **DIGPT, **changes, **{"parallel.processes": processes, "teacher.tokens": str(tokens)}
            )
            for name, changes in spreads.items()
        ]
        if processes == 1:
            paths.append(write_run(tmp_path / "in-the-loop", **DIGPT, **in_the_loop))
        train_together(paths, processes)
        weights.unlink(missing_ok=True)
    in_loop, stored = (RunFolder(tmp_path / name).read_result() for name in ("in-the-loop", "zero1"))
    assert stored["teacher_flops"] == 0 < in_loop["teacher_flops"]
    assert in_loop["train_flops"] - in_loop["teacher_flops"] == pytest.approx(stored["train_flops"], rel=1e-9)
    reference = curve(tmp_path / "zero1", "loss")
    assert len(reference) == 12 and reference[-1] < reference[0]
    for name in ("zero3", "pipeline"):
        torch.testing.assert_close(curve(tmp_path / name, "loss"), reference, atol=TOLERANCE, rtol=0)
        val_losses = [curve(tmp_path / run, "val_loss") for run in (name, "zero1")]
        torch.testing.assert_close(*val_losses, atol=TOLERANCE, rtol=0)
