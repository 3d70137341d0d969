"""The frozen teacher beside a model that ZeRO-3 partitions: whole in every process, and in no checkpoint."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from arvis_scale.config import build_config, load_yaml, recipe_path, save_config
from arvis_scale.engine.setup import objective_of
from arvis_scale.models.teachers import TeacherShape

pytestmark = pytest.mark.processes

STEP_AND_SAVE = """
import json, sys
import torch
from arvis_scale.config import load_config
from arvis_scale.engine.checkpointing.checkpoints import Checkpoints
from arvis_scale.engine.distributed import join_processes
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.setup import Preparation, load_teacher_of, objective_of
from arvis_scale.engine.parallel.zero_engine import ZeroEngine

config = load_config(sys.argv[1])
processes = join_processes()
prepare = Preparation(processes.device, load_teacher_of(config, processes.device))
engine = ZeroEngine(objective_of(config, prepare.teacher), config, processes).deepspeed
for step in range(2):
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    loss, _ = engine(prepare({"images": images, "sample_seeds": torch.arange(4), "step": torch.full((1,), step)}))
    engine.backward(loss)
    engine.step()
folder = RunFolder(config.output)
with Checkpoints(folder.checkpoints, processes, config) as checkpoints:
    checkpoints.save(engine, {"step": 2})
seen = {
    "teacher": {name: list(p.shape) for name, p in prepare.teacher.tower.named_parameters()},
    "teacher_is_partitioned": [name for name, p in prepare.teacher.tower.named_parameters() if hasattr(p, "ds_id")],
    "student_is_partitioned": all(hasattr(p, "ds_id") for p in engine.module.parameters()),
    "optimized": sum(p.ds_numel for group in engine.optimizer.fp16_groups for p in group),
}
(folder.path / f"seen_{processes.rank}.json").write_text(json.dumps(seen))
"""


def test_zero3_leaves_the_teacher_whole_and_out_of_the_checkpoint(tmp_path, environment):
    import timm

    tower = timm.create_model("test_vit")
    save_file(tower.state_dict(), tmp_path / "teacher.safetensors")
    values = {
        "name": "run",
        "output": str(tmp_path / "run"),
        "data.shards": "-",
        "objective": "digpt",
        "preset": "nano",
        "samples_seen": 16,
        "global_batch_size": 8,
        "micro_batch_size": 4,
        "parallel.processes": 2,
        "parallel.strategy": "zero3",
        # The smallest parameters are partitioned too.
        "parallel.deepspeed": {"zero_optimization": {"stage3_param_persistence_threshold": 0}},
        "teacher.kind": "timm",
        "teacher.checkpoint": str(tmp_path / "teacher.safetensors"),
        "teacher.architecture": "test_vit",
    }
    config = build_config(load_yaml(recipe_path("digits")), values, "test")
    save_config(config, tmp_path / "config.yaml")
    script = tmp_path / "step_and_save.py"
    script.write_text(STEP_AND_SAVE)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    finished = subprocess.run(
        [*command, str(script), str(tmp_path / "config.yaml")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]

    whole = {name: list(p.shape) for name, p in tower.named_parameters() if not name.startswith("head")}
    with torch.device("meta"):
        student = objective_of(config, TeacherShape(64, 10))
    names = {name for name, _ in student.named_parameters()}
    for rank in range(2):
        seen = json.loads((tmp_path / "run" / f"seen_{rank}.json").read_text())
        assert seen["teacher"] == whole
        assert seen["teacher_is_partitioned"] == [] and seen["student_is_partitioned"]
        assert seen["optimized"] == sum(p.numel() for p in student.parameters())
    files = list((tmp_path / "run" / "checkpoints").rglob("*_model_states.pt"))
    assert len(files) == 2
    for file in files:
        saved = torch.load(file, weights_only=False)
        assert set(saved["module"]) == names
        assert {name for group in saved["param_shapes"] for name in group} == names
