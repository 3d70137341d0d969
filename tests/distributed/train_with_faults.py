"""Trains runs, one after the other, whose data go wrong in one process: FAULT:BATCH:CONFIG each.

Run by test_guards.py once per rank. FAULT is what happens to the last process at its first micro batch of global batch
BATCH: `none`; `nan`: images that are not numbers; `spike`: a loss thirty times too high; `hang`: reading never ends. Or
`slow`: it reads slowly from BATCH on; `window`: no process reads the batches from BATCH up to the second number
(`window:4-6`).
"""

import itertools
import sys
import time

import torch

from arvis_scale.cli import main
from arvis_scale.config import load_config
from arvis_scale.engine import setup, train
from arvis_scale.models.xtra import Xtra

prepare = setup.Preparation.__call__
read_batches = setup.train_batches
forward = Xtra.forward


def read_a_disk_that_does_not_answer():
    time.sleep(1000)


def prepare_with(fault, number, global_batch_size):
    def prepare_faulty(self, batch):
        prepared = prepare(self, batch)
        is_last = torch.distributed.get_rank() == torch.distributed.get_world_size() - 1
        is_training = "positions" in batch
        batch_number = int(batch["positions"][0]) // global_batch_size if is_training else -1
        if is_last and fault == "slow" and batch_number >= number:
            time.sleep(0.5)
        if is_last and batch_number == number:
            if fault == "hang":
                read_a_disk_that_does_not_answer()
            if fault == "nan":
                prepared["images"] = prepared["images"] * torch.nan
            if fault == "spike":
                prepared["is_spike"] = torch.tensor(True)
        return prepared

    return prepare_faulty


def forward_with_spike(self, batch):
    loss, parts = forward(self, batch)
    return loss * (30.0 if "is_spike" in batch else 1.0), parts


def batches_without(first, stop):
    def read(config, images, *, rank, **options):
        num_before = first * config.accumulation_steps
        num_within = (stop - first) * config.accumulation_steps
        before = itertools.islice(read_batches(config, images, rank=rank, **options), num_before)
        config.samples_seen += (stop - first) * config.global_batch_size  # as many steps, of later batches
        after = itertools.islice(read_batches(config, images, rank=rank, **options), num_before + num_within, None)
        config.samples_seen -= (stop - first) * config.global_batch_size
        return itertools.chain(before, after)

    return read


Xtra.forward = forward_with_spike
for argument in sys.argv[1:]:
    fault, number, path = argument.split(":", 2)
    setup.Preparation.__call__, train.train_batches = prepare, read_batches
    if fault == "window":
        train.train_batches = batches_without(*map(int, number.split("-")))
    elif fault != "none":
        setup.Preparation.__call__ = prepare_with(fault, int(number), load_config(path).global_batch_size)
    sys.argv = ["arvis-scale", "train", path]
    try:
        main()
    except SystemExit as end:
        print(f"{path} ended with {end.code}", flush=True)
