"""A run that goes on with another number of processes: the losses of the one that was left alone.

Runs that need the same number of processes share one start, which costs more than they do.
"""

import contextlib
import io
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from arvis_scale.engine.checkpointing.pruning import remove_optimizer_state
from arvis_scale.engine.run_folder import RunFolder

pytestmark = pytest.mark.processes

HALFWAY = "step_00000006"
BF16 = {"parallel.strategy": "zero1", "precision": "bf16"}
PARTITIONED = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
STRATEGIES = {
    "zero0": {"parallel.strategy": "zero0"},
    "zero1": {"parallel.strategy": "zero1"},
    "zero2": {"parallel.strategy": "zero2"},
    "zero3": {"parallel.strategy": "zero3"},
    "zero3-partitioned": {"parallel.strategy": "zero3", "parallel.deepspeed": PARTITIONED},
    "offload": {"parallel.strategy": "zero3_offload"},
    "bf16": BF16,
}
# Trains several runs, then notes for each whether its engine's weights, gathered, are what it exports of them.
TRAIN_AND_COMPARE = """
import json, sys
import torch
from arvis_scale.config import load_config
from arvis_scale.engine.checkpointing.checkpoints import Checkpoints
from arvis_scale.engine.distributed import join_processes
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.setup import objective_of
from arvis_scale.engine.train import train
from arvis_scale.engine.parallel.zero_engine import ZeroEngine
from deepspeed import zero

for path in sys.argv[1:]:
    config = load_config(path)
    train(config)
    processes = join_processes()
    engine = ZeroEngine(objective_of(config, None), config, processes)
    with Checkpoints(RunFolder(config.output).checkpoints, processes, config) as checkpoints:
        checkpoints.load(engine.deepspeed)
    exported, different = engine.encoder_weights(), []
    for name, parameter in engine.deepspeed.module.encoder.named_parameters():
        with zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            # A parameter in bf16 is its rounded master weight.
            same = torch.equal(parameter.detach().cpu(), exported[name].to(parameter.dtype))
        if not same:
            different.append(name)
    if processes.is_first:
        (RunFolder(config.output).path / "different.json").write_text(json.dumps(different))
"""
# Where it was begun and where it goes on.
DIRECTIONS = ((2, 1), (1, 2))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_run, train_together):
    """Folders of whole runs (`2/zero1`: by two processes) and of those that changed hands halfway (`21/zero1`)."""
    root = tmp_path_factory.mktemp("runs")

    def write(name, num_processes, changes):
        spread = {"parallel.processes": num_processes, "micro_batch_size": 32 // num_processes}
        saved = {"checkpoints.every": 6, "checkpoints.keep_last": 2, "checkpoints.background": num_processes == 2}
        return write_run(root / name, objective="xtra", **spread, **saved, **changes)

    def go_on(begun, ended):
        paths = []
        for name, changes in STRATEGIES.items():
            paths.append(write(f"{begun}{ended}/{name}", ended, changes))
            for path in ("environment.json", f"checkpoints/{HALFWAY}"):
                source, copy = root / f"{begun}/{name}" / path, root / f"{begun}{ended}/{name}" / path
                copy.parent.mkdir(exist_ok=True)
                shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
        return paths

    whole = {n: [write(f"{n}/{name}", n, changes) for name, changes in STRATEGIES.items()] for n in (1, 2)}
    train_together(whole[2], 2)
    train_together([*whole[1], *go_on(2, 1)], 1)
    script = root / "train_and_compare.py"
    script.write_text(TRAIN_AND_COMPARE)
    train_together(go_on(1, 2), 2, script)
    return root


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(("begun", "ended"), DIRECTIONS)
def test_losses_and_weights_are_those_of_the_run_that_was_left_alone(runs, curve, name, begun, ended):
    changed, alone = runs / f"{begun}{ended}" / name, runs / str(begun) / name
    # Sums over another number of processes, in another order; in bf16 that is seen in the third digit.
    tolerance = 1e-6 if name != "bf16" else 5e-3
    losses = curve(changed, "loss")
    assert len(losses) == 6
    torch.testing.assert_close(losses, curve(alone, "loss")[6:], rtol=tolerance, atol=0)
    weights = load_file(changed / "encoder.safetensors")
    for key, expected in load_file(alone / "encoder.safetensors").items():
        torch.testing.assert_close(weights[key], expected, rtol=0, atol=10 * tolerance, msg=key)


@pytest.mark.parametrize(("begun", "ended"), DIRECTIONS)
def test_device_seconds_are_those_of_the_devices_that_each_part_had(runs, begun, ended):
    run = RunFolder(runs / f"{begun}{ended}" / "zero1")
    saved = torch.load(run.checkpoints / HALFWAY / "state" / "mp_rank_00_model_states.pt", weights_only=False)["run"]
    assert saved["device_seconds"] == pytest.approx(begun * saved["train_seconds"])
    result = run.read_result()
    after = result["wall_seconds"] - saved["train_seconds"]
    assert after > 0
    assert result["device_seconds"] == pytest.approx(saved["device_seconds"] + ended * after)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_exported_weights_are_those_that_the_engine_computes_with(runs, name):
    assert json.loads((runs / "12" / name / "different.json").read_text()) == []


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "zero0"])
def test_deepspeeds_own_reader_finds_the_exported_weights_with_and_without_optimizer_state(
    runs, tmp_path, name, num_processes
):
    run = runs / str(num_processes) / name
    expected = load_file(run / "encoder.safetensors")
    checkpoint = shutil.copytree(run / "checkpoints" / "step_00000012", tmp_path / "step_00000012")
    whole = num_bytes(checkpoint)
    for tag in ("state", "weights"):
        weights = fp32_weights(checkpoint, tag)
        for key, value in expected.items():
            assert torch.equal(weights[f"encoder.{key}"], value), key
        remove_optimizer_state(checkpoint)
    assert num_bytes(checkpoint) < 0.65 * whole


def fp32_weights(checkpoint, tag):
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with contextlib.redirect_stdout(io.StringIO()):
        return get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), tag)


def num_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.pt"))
