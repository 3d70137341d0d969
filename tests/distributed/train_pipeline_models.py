"""Run by test_pipeline_models under torchrun: as many stages as processes, compared with plain training in each."""

import os

import torch

from arvis_scale.engine.parallel.deepspeed_here import PipelineModule, init_distributed, initialize
from arvis_scale.models.build import build_objective
from arvis_scale.models.digpt import Digpt
from arvis_scale.models.pipeline import first_inputs
from arvis_scale.models.presets import EncoderSize

NUM_STEPS, MICRO_BATCHES, CLIP, LEARNING_RATE = 3, 4, 0.5, 0.5
OPTIONS = {
    "xtra": {"block_side": 2, "drop_path": 0.3, "blocks_ahead": 2, "block_orders": 4},
    "aim": {},
    "igpt": {"resolution": 4, "palette_size": 16},
    "mae": {},
}
SETTINGS = {
    "train_batch_size": 2 * MICRO_BATCHES,
    "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": MICRO_BATCHES,
    "gradient_clipping": CLIP,
    "zero_optimization": {"stage": 1},
    "zero_allow_untested_optimizer": True,
    "steps_per_print": 10**9,
}


def build(name):
    torch.manual_seed(0)
    if name != "digpt":
        return build_objective(name, preset="micro", image_size=16, patch_size=4, options=OPTIONS[name])
    # 24 layers: of three stages the first holds tap 6, the second taps 8, 10 and 12, and the third reads them all.
    return Digpt(
        size=EncoderSize(width=16, depth=12, num_heads=2, mlp_hidden=64),
        image_size=16,
        patch_size=4,
        segment_side=2,
        decoders=["generative", "discriminative"],
        decoder_width=16,
        decoder_depth=2,
        decoder_heads=2,
        teacher_width=10,
        teacher_grid=6,
    )


def batch_of(step, part):
    generator = torch.Generator().manual_seed(100 * step + part)
    return {
        "images": torch.randn(2, 3, 16, 16, generator=generator),
        "teacher_tokens": torch.randn(2, 37, 10, generator=generator),
        "sample_seeds": torch.arange(2) + 1000 * step + 10 * part,
        "weights": torch.tensor([1.0, 1.0]),
        "step": torch.tensor(step),
    }


def train_plainly(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    losses = []
    for step in range(NUM_STEPS):
        loss = torch.stack([model(batch_of(step, part))[0] for part in range(MICRO_BATCHES)]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.item())
    return losses


def compare(name):
    plain = build(name).train()
    losses = train_plainly(plain)
    layers = build(name).train().pipeline_layers()
    module = PipelineModule(layers, num_stages=int(os.environ["WORLD_SIZE"]), partition_method="uniform")
    optimizer = torch.optim.SGD(module.parameters(), lr=LEARNING_RATE)
    engine, *_ = initialize(model=module, optimizer=optimizer, config=SETTINGS)
    for step in range(NUM_STEPS):
        inputs = ((first_inputs(layers[0], batch_of(step, part)), ()) for part in range(MICRO_BATCHES))
        loss = engine.train_batch(inputs).item()
        assert abs(loss - losses[step]) < 1e-6 * max(1, losses[step]), (
            f"{name} step {step}: {loss}, plain {losses[step]}"
        )
    expected = dict(plain.named_parameters())
    mine = {parameter: name.split(".objective.")[1] for name, parameter in module.named_parameters()}
    for parameter, parameter_name in mine.items():
        difference = (parameter - expected[parameter_name]).abs().max().item()
        assert difference < 1e-6, f"{name} {parameter_name}: {difference}"
    if engine.global_rank == 0:
        print(f"{name}: equal to plain training", flush=True)


torch.set_num_threads(1)
init_distributed(dist_backend="gloo")
for objective in (*OPTIONS, "digpt"):
    compare(objective)
