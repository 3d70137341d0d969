"""A page of images from a split, drawn with a seed, to see at a glance what is in the shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arvis_scale.atomic import whole_file
from arvis_scale.data.faults import BadSample
from arvis_scale.data.shards import ShardedDataset, ShardSplit

NUM_COLUMNS = 8
MAX_ROWS = 6
MAX_CLASS_ROWS = 12  # up to this many classes, each has a row of its own
CELL_INCHES = 0.9
DPI = 200
MAX_SIDE = 256  # pixels of a shown image; a cell is 180 wide in print
PIXELATED_SIDE = 96  # smaller images show their pixels
LABEL_LENGTH = 14  # characters of a class name under its image
FONT_SIZE = 7.0


def write_contact_sheet(dataset: ShardedDataset, split_name: str, path: Path, *, seed: int = 0) -> None:
    """Write a PNG of images of a split: a row per class where there are few classes, else one image of each in turn.

    An image that cannot be read is shown as an empty cell with the reason. The same seed gives the same page.
    """
    split = dataset.split(split_name)
    labels = split.labels
    order = np.random.default_rng(seed).permutation(len(split))
    if labels is not None and 1 < len(dataset.classes) <= MAX_CLASS_ROWS:
        rows = [order[labels[order] == number][:NUM_COLUMNS] for number in range(len(dataset.classes))]
        names = dict(enumerate(dataset.classes))
    else:
        chosen = _few_of_each(order, labels) if labels is not None else order[: NUM_COLUMNS * MAX_ROWS]
        rows = [chosen[start : start + NUM_COLUMNS] for start in range(0, len(chosen), NUM_COLUMNS)]
        names = {}
    figure = _draw_grid(split, rows, names)
    if labels is not None and not names:
        for axes, sample in zip(figure.axes, np.concatenate(rows).tolist(), strict=False):
            name = _shortened(dataset.classes[labels[sample]])
            axes.set_xlabel(name, fontsize=FONT_SIZE, labelpad=2, parse_math=False)
    classes = f", {len(dataset.classes):,} classes" if dataset.classes else ""
    title = f"{dataset.name}, {split.name}: {len(split):,} images{classes}"
    figure.suptitle(title, fontsize=FONT_SIZE + 1.5, x=0.03 / figure.get_figwidth(), ha="left", parse_math=False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def _few_of_each(order: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A page of samples in the order of their classes, such that no class has two before every class has one."""
    positions = np.argsort(labels[order], kind="stable")
    sorted_labels = labels[order][positions]
    turns = np.arange(len(order)) - np.searchsorted(sorted_labels, sorted_labels)  # 0 for the first of its class
    chosen = order[positions[np.lexsort((positions, turns))]][: NUM_COLUMNS * MAX_ROWS]
    return chosen[np.argsort(labels[chosen], kind="stable")]


def _draw_grid(split: ShardSplit, rows: list[npt.NDArray[np.int64]], names: dict[int, str]) -> Figure:
    """`names` stand to the left of their rows."""
    name_inches = 0.1 + 0.08 * min(max(map(len, names.values())), LABEL_LENGTH) if names else 0.0
    caption_inches = 0.0 if names else 0.12
    size = (CELL_INCHES * NUM_COLUMNS + name_inches, (CELL_INCHES + caption_inches) * len(rows) + 0.25)
    figure = Figure(figsize=size, layout="constrained")
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)  # type: ignore[call-arg]
    grid = figure.subplots(len(rows), NUM_COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.spines[:].set_visible(False)
    for row, samples in enumerate(rows):
        for axes, sample in zip(grid[row], samples.tolist(), strict=False):
            _draw_image(axes, split, sample)
        if row in names:
            name = _shortened(names[row])
            grid[row][0].set_ylabel(name, fontsize=FONT_SIZE + 1, rotation=0, ha="right", va="center", parse_math=False)
    return figure


def _shortened(name: str) -> str:
    if len(name) <= LABEL_LENGTH:
        return name
    return name[: LABEL_LENGTH - 6] + "\N{HORIZONTAL ELLIPSIS}" + name[-5:]  # names often differ at their ends


def _draw_image(axes: Axes, split: ShardSplit, sample: int) -> None:
    """Draw the whole image in the middle of a square."""
    try:
        image = split.image(sample)
    except BadSample as error:
        axes.set_facecolor("0.92")
        axes.text(0.5, 0.5, error.reason.replace("_", "\n"), ha="center", va="center", color="0.35", fontsize=6.5)
        return
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    width, height = (side / max(image.size) for side in image.size)
    extent = ((1 - width) / 2, (1 + width) / 2, (1 - height) / 2, (1 + height) / 2)
    interpolation = "nearest" if max(image.size) < PIXELATED_SIDE else "antialiased"
    axes.imshow(np.asarray(image), extent=extent, interpolation=interpolation)
    axes.set(xlim=(0, 1), ylim=(0, 1))
