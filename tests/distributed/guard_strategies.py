"""Trains a few steps under each strategy with a NaN in one process's images, and prints what became of the weights.

Run by test_guards.py under torchrun, one process group for all cases: SHARDS, then STRATEGY:PRECISION:OPTIMIZER each.
"""

import json
import sys

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from arvis_scale.config import build_config, load_yaml, recipe_path
from arvis_scale.data.selection import select_images
from arvis_scale.engine.distributed import join_processes
from arvis_scale.engine.guarding.guarded_engine import guard_engine
from arvis_scale.engine.setup import Preparation, train_batches
from arvis_scale.engine.train import start_engine

NUM_STEPS, BAD_STEP = 5, 3


class CountReads(TorchDispatchMode):
    """Counts how often the host asks for a value of a tensor: on a GPU each of them waits for it."""

    num_reads = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.num_reads += function is torch.ops.aten._local_scalar_dense.default
        return function(*arguments, **(keywords or {}))


def config_of(shards, strategy, precision, optimizer, world_size):
    stages = {"parallel.stages": 2} if strategy == "pipeline" else {}
    muon = {"optimizer.name": "muon", "optimizer.clip_grad_norm": "inf", "guards.loss_spike": None}
    values = {
        **{"objective": "xtra", "name": "run", "output": "unused", "data.shards": shards, "preset": "pico"},
        **{"global_batch_size": 16, "micro_batch_size": 4, "samples_seen": NUM_STEPS * 16, "unique_images": 64},
        **{"precision": precision, "parallel.strategy": strategy, "parallel.processes": world_size, **stages},
        **{"guards.non_finite": "skip-batch", "guards.loss_spike": "raise", "optimizer.learning_rate": 1e-3},
        **(muon if optimizer == "muon" else {}),
    }
    return build_config(load_yaml(recipe_path("digits")), values, "test")


def train(config, processes, *, is_guarded, bad_step):
    """Return the encoder's weights after each step, the learning rates, the incidents and the reads per step."""
    images = select_images(config.data, config.unique_images)
    _, engine = start_engine(config, processes)
    guards = guard_engine(engine, config.guards, processes) if is_guarded else None
    batches = train_batches(config, images, rank=engine.data_rank, start_step=0)
    prepare = Preparation(processes.device, None)
    course = {"weights": [], "rates": [], "reads": []}

    def next_batch():
        batch = prepare(next(batches))
        if step == bad_step and engine.data_rank == engine.data_world_size - 1:
            batch["images"] = batch["images"] * torch.nan
        return {**batch, "step": torch.tensor(step)}

    for step in range(1, config.num_steps + 1):
        course["rates"].append(engine.learning_rate)
        with CountReads() as reads:
            engine.train_step(next_batch)
        course["reads"].append(reads.num_reads)
        if guards is not None:
            guards.end_step(step)
        course["weights"].append({name: value.clone() for name, value in engine.encoder_weights().items()})
    course["incidents"] = guards.read() if guards is not None else []
    return course


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def main(shards, *cases):
    processes = join_processes()
    for case in cases:
        config = config_of(shards, *case.split(":"), processes.world_size)
        plain = train(config, processes, is_guarded=False, bad_step=0)
        guarded = train(config, processes, is_guarded=True, bad_step=0)
        bad = train(config, processes, is_guarded=True, bad_step=BAD_STEP)
        found = {
            "case": case,
            "equal_without_incident": same(plain["weights"][-1], guarded["weights"][-1]),
            "moves": not same(bad["weights"][BAD_STEP - 2], bad["weights"][BAD_STEP]),
            "unchanged_by_bad_step": same(bad["weights"][BAD_STEP - 2], bad["weights"][BAD_STEP - 1]),
            "finite": all(value.isfinite().all().item() for value in bad["weights"][-1].values()),
            "same_rates": bad["rates"] == guarded["rates"] == plain["rates"],
            "incidents": [[incident.step, incident.reason] for incident in bad["incidents"]],
            "unguarded_reads": plain["reads"][-1],
            "reads": bad["reads"][-1],
        }
        if processes.is_first:
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
