"""Every objective in DeepSpeed's own pipeline: the losses and weights of plain training."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("num_stages", [2, 3])
def test_deepspeed_pipeline_trains_as_plain_torch(num_stages, environment):
    script = Path(__file__).with_name("train_pipeline_models.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_stages}"]
    finished = subprocess.run([*command, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.count("equal to plain training") == 5, finished.stdout
