"""A branch ends with the weights that its configuration alone, trained from scratch, ends with."""

import json

import pytest
import torch
from safetensors.torch import load_file

from arvis_scale.engine.logs.metrics_log import read_metrics
from arvis_scale.engine.run_folder import RunFolder

pytestmark = pytest.mark.processes

# The parent cools down after step 32; the short branch after step 30, the long one after 40.
SAMPLES_SEEN = {"parent": 40 * 32, "short": 38 * 32, "long": 50 * 32}
STABLE = {
    "objective": "xtra",
    "optimizer.schedule": "warmup_stable_decay",
    "optimizer.warmup_samples": 5 * 32,
    "checkpoints.every": 10,
    "checkpoints.keep_every": 10,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_run, train_together):
    """Folders by name: a parent, two branches of it, and each branch's run from scratch."""
    root = tmp_path_factory.mktemp("runs")
    parents = {"parent": None, "short": "parent", "short-scratch": None, "long": "parent", "long-scratch": None}
    paths = []
    for name, parent in parents.items():
        changes = {"samples_seen": SAMPLES_SEEN[name.partition("-")[0]]}
        if parent is not None:
            changes["parent"] = str(root / parent)
        paths.append(write_run(root / name, **STABLE, **changes))
    train_together(paths, 1)
    return root


@pytest.mark.parametrize("branch", ["short", "long"])
def test_a_branch_ends_as_if_it_had_been_trained_from_scratch(runs, branch):
    weights, expected = (load_file(runs / name / "encoder.safetensors") for name in (branch, f"{branch}-scratch"))
    assert weights.keys() == expected.keys()
    for key, value in weights.items():
        assert torch.equal(value, expected[key]), key
    lines, expected_lines = (losses_and_rates(runs / name) for name in (branch, f"{branch}-scratch"))
    assert list(lines) == list(range(31, SAMPLES_SEEN[branch] // 32 + 1))
    assert lines == {step: values for step, values in expected_lines.items() if step > 30}


def test_a_branch_differs_from_its_parent(runs):
    parent, branch = (load_file(runs / name / "encoder.safetensors") for name in ("parent", "short"))
    assert not all(torch.equal(parent[key], branch[key]) for key in parent)


def test_the_result_names_the_parent_and_counts_the_whole_path(runs):
    branch, scratch = (RunFolder(runs / name).read_result() for name in ("short", "short-scratch"))
    assert branch["parent"] == {"name": "parent", "path": str(runs / "parent")}
    assert branch["branched_at_step"] == 30
    assert (scratch["parent"], scratch["branched_at_step"]) == (None, None)
    for key in ("samples_seen", "train_flops", "val_loss", "train_loss"):
        assert branch[key] == scratch[key], key
    own = sum(line["seconds_per_step"] for line in read_metrics(runs / "short" / "metrics.jsonl") if "loss" in line)
    assert branch["wall_seconds"] == pytest.approx(own)


def test_a_branch_outlives_the_checkpoints_of_its_parent(runs):
    """Its first checkpoint is of the same files, and its own."""
    first = runs / "short" / "checkpoints" / "step_00000030"
    theirs = runs / "parent" / "checkpoints" / "step_00000030"
    manifests = [json.loads((checkpoint / "manifest.json").read_text()) for checkpoint in (first, theirs)]
    assert manifests[0] == manifests[1]
    for name in manifests[0]["files"]:
        assert (first / name).samefile(theirs / name)
        assert not (first / name).is_symlink()


def losses_and_rates(folder):
    return {
        line["step"]: (line["loss"], line["lr"], line["grad_norm"])
        for line in read_metrics(folder / "metrics.jsonl")
        if "loss" in line
    }
