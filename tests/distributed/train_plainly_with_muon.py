"""Runs with Muon in plain torch, one process, no engine: the formulas of Jordan et al. 2024.

Orthogonalized by DeepSpeed's function: it iterates in float16 where the processor has it, by up to 5% off, so that no
other could be compared with it closely. tests/engine/test_optimizer.py looks at what it returns.
Writes RUN/metrics.jsonl (step, loss) and RUN/encoder.safetensors beside each configuration.
"""

import json
import sys
from pathlib import Path

import torch
from deepspeed.runtime.zero.muon.original_muon import zeropower_via_gram_newtonschulz
from safetensors.torch import save_file

from arvis_scale.config import load_config
from arvis_scale.data.selection import select_images
from arvis_scale.engine.setup import Preparation, objective_of, train_batches


@torch.no_grad()
def update(matrix, momentum, config, factor):
    momentum.lerp_(matrix.grad, 1 - config.muon_momentum)
    nesterov = matrix.grad.lerp(momentum, config.muon_momentum)
    rows, columns = matrix.shape
    rate = config.muon_learning_rate * factor
    matrix.mul_(1 - rate * config.weight_decay)
    matrix.sub_(rate * max(1, rows / columns) ** 0.5 * zeropower_via_gram_newtonschulz(nesterov, steps=5))


def train_plainly(config):
    folder = Path(config.output)
    images = select_images(config.data, config.unique_images)
    prepare = Preparation(torch.device("cpu"), None)
    model = objective_of(config, None).train()
    named = dict(model.named_parameters())
    hidden = {name: torch.zeros_like(p) for name, p in named.items() if ".blocks." in name and p.ndim == 2}
    others = [p for name, p in named.items() if name not in hidden]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": config.optimizer.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(config.optimizer.beta1, config.optimizer.beta2))
    batches = train_batches(config, images, rank=0, start_step=0)
    lines = []
    for step in range(config.num_steps):
        # A cool-down over all steps: arXiv 2405.18392, 1 - sqrt.
        final = config.optimizer.final_learning_rate / config.optimizer.learning_rate
        factor = final + (1 - final) * (1 - (step / (config.num_steps - 1)) ** 0.5)
        loss, _ = model({**prepare(next(batches)), "step": torch.tensor(step)})
        model.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = config.optimizer.learning_rate * factor
        optimizer.step()
        for name, momentum in hidden.items():
            update(named[name], momentum, config.optimizer, factor)
        lines.append({"step": step + 1, "loss": loss.item()})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_file(
        {name: value.clone() for name, value in model.encoder.state_dict().items()}, folder / "encoder.safetensors"
    )


torch.set_num_threads(1)
torch.compiler.set_stance("force_eager")
for path in sys.argv[1:]:
    train_plainly(load_config(path))
