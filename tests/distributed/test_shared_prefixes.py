"""A study over lengths trains once what its runs have in common, and each ends as if it had been trained alone."""

import json

import pytest
import torch
from safetensors.torch import load_file

from arvis_scale.config import build_config, load_yaml, save_config
from arvis_scale.engine.run_folder import RunFolder

pytestmark = pytest.mark.processes

# 32 images per step: 20 and 40 steps, which cool down after 16 and 32.
STUDY = """
schema_version: 1
name: lengths
base: digits
set: {objective: xtra, preset: nano, global_batch_size: 32, micro_batch_size: 32, data.validation_images: 37,
      optimizer.schedule: warmup_stable_decay, optimizer.warmup_samples: 160,
      checkpoints.every: 0, checkpoints.keep_last: 1, checkpoints.keep_optimizer_state: until_finished}
axes:
  samples_seen: [640, 1280]
references: false
launch: {max_parallel: 1}
"""
SHORT, LONG, LONGER = (f"xtra-nano-uall-n{samples}-s0" for samples in (640, 1280, 1920))


@pytest.fixture(scope="module")
def study(tmp_path_factory, digits, arvis_scale):
    """The folder of the study, extended by a longer run after it had ended, and what both commands said."""
    folder = tmp_path_factory.mktemp("lengths")
    (folder / "lengths.yaml").write_text(STUDY)
    output = folder / "out"
    submitted = arvis_scale("sweep", "submit", "lengths.yaml", f"data.shards={digits}", "--output", output, cwd=folder)
    assert submitted.returncode == 0, submitted.stderr[-3000:]
    extended = arvis_scale("sweep", "extend", output, "samples_seen+=1920", cwd=folder)
    assert extended.returncode == 0, extended.stderr[-3000:]
    return output, submitted, extended


def test_branches_begin_at_their_cool_downs(study):
    results = {name: RunFolder(study[0] / "runs" / name).read_result() for name in (SHORT, LONG, LONGER)}
    assert results[LONG]["parent"] is None
    for name, step in ((SHORT, 16), (LONGER, 32)):
        assert results[name]["parent"]["name"] == LONG
        assert results[name]["branched_at_step"] == step


def test_branches_end_with_the_weights_of_runs_trained_alone(study, train_together, tmp_path):
    alone = {}
    for name in (SHORT, LONGER):
        values = load_yaml(RunFolder(study[0] / "runs" / name).config)
        alone[name] = RunFolder(tmp_path / name)
        save_config(build_config(values, {"output": str(tmp_path / name), "parent": None}, "test"), alone[name].config)
    train_together([str(folder.config) for folder in alone.values()], 1)
    for name, folder in alone.items():
        weights, expected = (load_file(path) for path in (RunFolder(study[0] / "runs" / name).encoder, folder.encoder))
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in weights), name


def test_an_extended_study_starts_only_what_is_new(study):
    output, _, extended = study
    assert "1 runs are new: " + LONGER in extended.stdout
    assert "3 of 3 runs completed" in extended.stdout
    attempts = {name: RunFolder(output / "runs" / name).status().attempt for name in (SHORT, LONG, LONGER)}
    assert attempts == {SHORT: 1, LONG: 1, LONGER: 1}
    sweep = json.loads((output / "sweep.json").read_text())
    assert [run["name"] for run in sweep["runs"]] == [SHORT, LONG, LONGER]
    assert [line.split()[2] for line in sweep["commands"]] == ["submit", "extend"]
