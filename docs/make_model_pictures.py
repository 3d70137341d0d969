"""Make the pictures of the model pages: one small model of every objective, trained for a minute on one shard folder.

    python docs/make_model_pictures.py SHARDS

SHARDS: `arvis-scale shards build digits SHARDS`, or any labelled shards with splits train and test.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from arvis_scale.atomic import whole_file
from arvis_scale.data.loader import evaluation_batches, training_batches
from arvis_scale.data.order import SampleOrder
from arvis_scale.data.palette import palette_of_images
from arvis_scale.data.shards import ShardedDataset, open_shards
from arvis_scale.data.subsets import all_samples
from arvis_scale.models.aim import Aim
from arvis_scale.models.build import build_objective
from arvis_scale.models.digpt import Digpt
from arvis_scale.models.igpt import Igpt
from arvis_scale.models.images import normalize
from arvis_scale.models.objective import Objective
from arvis_scale.models.pictures import attention_mask, cosine_maps, visible
from arvis_scale.models.small_clip import train_small_clip
from arvis_scale.models.teachers import Teacher, from_open_clip
from arvis_scale.models.xtra import Xtra

Batch = dict[str, Tensor]

IMAGE_SIZE, PATCH_SIZE = 32, 4
NUM_SHOWN = 8
# Of the masks that are drawn: AIM's prefix is neither long nor short with it.
MASK_SEED = 3
# Side in tokens of the squares that the mask figure rules off, and the places whose field of view it shows.
PANELS: dict[str, tuple[int, tuple[int, ...]]] = {
    "xtra": (2, (6, 26, 54)),
    "aim": (1, (4, 28, 50)),
    "digpt": (4, (5, 21, 37)),
    "igpt": (1, (9, 28, 50)),
    "mae": (0, (1, 7, 14)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "xtra": {"block_side": 2, "drop_path": 0.0},
    "aim": {},
    "digpt": {"segment_side": 4},
    "igpt": {"resolution": 8, "palette_size": 16},
    "mae": {},
}
BLUE, RED, GRAY = "#2b5f8a", "#c8452f", 0.8


def main() -> None:
    """Train and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--objectives", nargs="+", default=list(OPTIONS), choices=list(OPTIONS))
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps of every model")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images")
    arguments = parser.parse_args()
    plt.rcParams.update({"font.size": 8, "font.family": "DejaVu Sans", "axes.titlesize": 8})
    arguments.output.mkdir(parents=True, exist_ok=True)
    shards = open_shards(arguments.shards)
    for name in arguments.objectives:
        teacher = make_teacher(shards) if name == "digpt" else None
        model = train(name, shards, teacher, arguments.steps)
        path = arguments.output / f"{name}.png"
        draw(name, model, test_batch(shards, teacher), path)
        print(f"wrote {path}, {path.stat().st_size / 1024:.0f} KB", flush=True)


def make_teacher(shards: ShardedDataset) -> Teacher:
    """Train a small CLIP on the shards' labels."""
    train_split = shards.split("train")
    batches = evaluation_batches(
        train_split,
        np.arange(len(train_split)),
        image_size=IMAGE_SIZE,
        batch_size=250,
        rank=0,
        world_size=1,
        num_workers=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        train_small_clip(
            ((batch["images"], batch["labels"]) for batch in batches),
            shards.classes,
            folder,
            image_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
        )
        return from_open_clip(folder)


def train(name: str, shards: ShardedDataset, teacher: Teacher | None, num_steps: int) -> Objective:
    """Return a trained model of size `micro`."""
    torch.manual_seed(0)
    teacher_shape = {"teacher_width": teacher.width, "teacher_grid": teacher.grid} if teacher else {}
    model = build_objective(
        name, preset="micro", image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, options=OPTIONS[name], **teacher_shape
    )
    if isinstance(model, Igpt):
        model.encoder.set_palette(torch.as_tensor(make_palette(shards)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps, pct_start=0.1)
    for step, batch in enumerate(train_batches(shards, num_steps)):
        loss, _ = model(prepared(batch, teacher))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == num_steps - 1:
            print(f"{name} step {step}, loss {loss.item():.3f}", flush=True)
    return model.eval()


def make_palette(shards: ShardedDataset) -> np.ndarray[Any, Any]:
    """Return the palette of iGPT."""
    split, options = shards.split("train"), OPTIONS["igpt"]
    return palette_of_images(
        split, np.arange(len(split)), num_colors=options["palette_size"], resolution=options["resolution"], seed=0
    )


def train_batches(shards: ShardedDataset, num_steps: int) -> Iterator[Batch]:
    """Return batches of 64 augmented images."""
    split = shards.split("train")
    return training_batches(
        split,
        SampleOrder(all_samples(split.shard_sizes, seed=0), seed=0),
        image_size=IMAGE_SIZE,
        crop_scale=(0.7, 1.0),
        crop_ratio=(0.75, 1.5),
        horizontal_flip=0.0,
        global_batch_size=64,
        micro_batch_size=64,
        rank=0,
        world_size=1,
        num_workers=0,
        num_samples=64 * num_steps,
    )


def test_batch(shards: ShardedDataset, teacher: Teacher | None) -> Batch:
    """Return the first test images."""
    batches = evaluation_batches(
        shards.split("test"),
        np.arange(NUM_SHOWN),
        image_size=IMAGE_SIZE,
        batch_size=NUM_SHOWN,
        rank=0,
        world_size=1,
        num_workers=0,
    )
    return prepared(next(iter(batches)), teacher)


def prepared(batch: Batch, teacher: Teacher | None) -> Batch:
    """Return what an objective reads."""
    images = normalize(batch["images"])
    prepared = {"images": images, "sample_seeds": batch["sample_seeds"]}
    if teacher is not None:
        prepared["teacher_tokens"] = teacher(images)
    return prepared


def draw(name: str, model: Objective, batch: Batch, path: Path) -> None:
    """Write the figure of one objective: its mask, what some tokens see, what it predicts."""
    rows = prediction_rows(model, batch)
    figure = plt.figure(figsize=(8, 2.35 + 0.86 * len(rows)), dpi=120)
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.35, 0.86 * len(rows)))
    left, *right = upper.subplots(1, 4, width_ratios=(1.35, 1, 1, 1))
    upper.subplots_adjust(left=0.09, right=0.99, top=0.86, bottom=0.12, wspace=0.12)
    draw_mask(left, name, model)
    image = visible(model.reconstruct(batch).get("target", batch["images"]))[0].permute(1, 2, 0).numpy()
    for number, (axes, place) in enumerate(zip(right, PANELS[name][1], strict=True)):
        draw_view(axes, model, place, image)
        if number == 1:
            predicts = "when it predicts the outlined pixel" if name == "igpt" else "at the outlined patch"
            axes.set_title(f"What the encoder sees {predicts}")
    axes = lower.subplots(len(rows), NUM_SHOWN, squeeze=False)
    lower.subplots_adjust(left=0.13, right=0.99, top=0.99, bottom=0.02, hspace=0.04, wspace=0.04)
    for row, (label, tiles) in enumerate(rows.items()):
        draw_row(axes[row], label, tiles)
    if isinstance(model, Digpt):
        lower.subplots_adjust(right=0.92)
        bar = lower.colorbar(axes[1, 0].images[0], cax=lower.add_axes((0.935, 0.06, 0.012, 0.54)))
        bar.set_label("cosine")
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", pil_kwargs={"optimize": True})
    plt.close(figure)


def draw_mask(axes: Axes, name: str, model: Objective) -> None:
    """Draw the mask in the order of computation, or in raster order where there is no mask but tokens are left out."""
    mask = attention_mask(model, MASK_SEED)
    allowed = mask.in_raster_order() if name == "mae" else mask.allowed
    axes.imshow(~allowed, cmap=matplotlib.colors.ListedColormap([BLUE, "white"]), vmin=0, vmax=1)
    side = PANELS[name][0]
    if side > 1:
        for edge in range(0, len(allowed) + 1, side**2):
            axes.axhline(edge - 0.5, color="white" if edge else "none", linewidth=0.4)
            axes.axvline(edge - 0.5, color="white" if edge else "none", linewidth=0.4)
    axes.set(xlabel="attended token", ylabel="attending token", xticks=[], yticks=[])
    axes.set_title("Attention mask, in " + ("raster order" if name == "mae" else "order of computation"))


def draw_view(axes: Axes, model: Objective, place: int, image: np.ndarray[Any, Any]) -> None:
    """Draw which patches the token at `place` sees, over an image."""
    mask = attention_mask(model, MASK_SEED)
    grid = round(mask.num_patches**0.5)
    seen = np.zeros(mask.num_patches, dtype=bool)
    seen[mask.patches[mask.allowed[place][: len(mask.patches)]].numpy()] = True
    if isinstance(model, Igpt):  # what predicts a pixel has read those before it
        seen[place] = False
    scale = IMAGE_SIZE // grid
    shown = np.kron(seen.reshape(grid, grid), np.ones((scale, scale)))[..., None]
    axes.imshow(shown * (0.15 + 0.85 * image) + (1 - shown) * (0.88 + 0.06 * image), vmin=0, vmax=1)
    for edge in range(1, grid):
        axes.axhline(edge * scale - 0.5, color=str(GRAY), linewidth=0.3)
        axes.axvline(edge * scale - 0.5, color=str(GRAY), linewidth=0.3)
    row, column = divmod(int(mask.patches[place]), grid)
    corner = (column * scale - 0.5, row * scale - 0.5)
    axes.add_patch(Rectangle(corner, scale, scale, fill=False, edgecolor=RED, linewidth=1.6))
    axes.set(xticks=[], yticks=[])


def prediction_rows(model: Objective, batch: Batch) -> dict[str, Tensor]:
    """Return rows of tiles by label: `B x 3 x H x W` images, or `B x g x g` cosines."""
    if isinstance(model, Digpt):
        maps = cosine_maps(model, batch)
        labels = {"generative": "next\nsegment", "discriminative": "seen\nsegments"}
        return {"image": visible(batch["images"]), **{labels[name]: cosines for name, cosines in maps.items()}}
    if isinstance(model, Igpt):
        samples = model.sample(2 * NUM_SHOWN, torch.Generator().manual_seed(0))
        real = model.reconstruct(batch)["target"]
        return {"image": visible(real), "samples": visible(samples[:NUM_SHOWN]), "": visible(samples[NUM_SHOWN:])}
    pictures = model.reconstruct(batch)
    target, prediction = visible(pictures["target"]), visible(pictures["prediction"])
    if isinstance(model, Xtra):
        return {"image": target, "predicted": prediction}
    given = torch.where(pictures["target"] == pictures["prediction"], target, torch.full_like(target, GRAY))
    return {"image": target, "prefix" if isinstance(model, Aim) else "visible": given, "predicted": prediction}


def draw_row(row: np.ndarray[Any, Any], label: str, tiles: Tensor) -> None:
    """Draw one row of tiles with its label."""
    colors = matplotlib.colormaps["viridis"].with_extremes(bad=str(GRAY))
    for axes, tile in zip(row, tiles, strict=True):
        if tile.dim() == 3:
            axes.imshow(tile.permute(1, 2, 0).numpy(), vmin=0, vmax=1)
        else:
            axes.imshow(np.ma.masked_invalid(tile.numpy()), cmap=colors, vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
    row[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)


if __name__ == "__main__":
    main()
