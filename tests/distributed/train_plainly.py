"""The runs of some configurations in plain torch, one process, no engine: what every way to spread them must equal.

Writes RUN/metrics.jsonl (step, loss, grad_norm) and RUN/encoder.safetensors beside each configuration.
"""

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from arvis_scale.config import load_config
from arvis_scale.data.selection import select_images
from arvis_scale.engine.distributed import join_processes
from arvis_scale.engine.setup import (
    Preparation,
    load_teacher_of,
    objective_of,
    teacher_shape_of,
    train_batches,
    write_palette,
)


def cosine(config, step):
    """The recipe's schedule without warm-up, written out again."""
    optimizer = config.optimizer
    progress = step / (config.num_steps - 1)
    span = optimizer.learning_rate - optimizer.final_learning_rate
    return optimizer.final_learning_rate + span * 0.5 * (1 + math.cos(math.pi * progress))


def train_plainly(config):
    folder = Path(config.output)
    images = select_images(config.data, config.unique_images)
    write_palette(config, images, join_processes())
    cpu = torch.device("cpu")
    prepare = Preparation(cpu, load_teacher_of(config, cpu))
    model = objective_of(config, teacher_shape_of(config)).train()
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.optimizer.weight_decay}, {"params": vectors}]
    betas = (config.optimizer.beta1, config.optimizer.beta2)
    optimizer = torch.optim.AdamW(groups, betas=betas, weight_decay=0.0)
    batches = train_batches(config, images, rank=0, start_step=0)
    lines = []
    for step in range(config.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = cosine(config, step)
        batch = {**prepare(next(batches)), "step": torch.tensor(step)}
        loss, _ = model(batch)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_grad_norm)
        optimizer.step()
        lines.append({"step": step + 1, "loss": loss.item(), "grad_norm": norm.item()})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    weights = {name: value.detach().clone() for name, value in model.encoder.state_dict().items()}
    save_file(weights, folder / "encoder.safetensors")


torch.set_num_threads(1)
for path in sys.argv[1:]:
    train_plainly(load_config(path))
