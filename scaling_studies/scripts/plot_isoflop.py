"""IsoFLOP parabolas and the compute-optimal size that they give (approach 2).

    python -m scaling_studies.scripts.plot_isoflop [POINTS.csv] [--column OURS=THEIRS] [--where COLUMN=VALUE]

The table needs the columns `budget, params, error`; rows of one budget share its value.

It prints for the simulated points:

    N_opt grows as C^0.48, D_opt as C^0.52
    figures/isoflop.png
    figures/isoflop.svg
    figures/isoflop.pdf
    figures/isoflop.json
"""

from __future__ import annotations

from scaling_studies import isoflop
from scaling_studies.example import example_isoflop_points
from scaling_studies.figures import isoflop_parabolas
from scaling_studies.scripts.table_argument import read_points, run, write

FLOPS_PER_PARAM_SAMPLE = 6.0
FIGURE = "figures/isoflop"


def main() -> None:
    columns = {"budget": "budget", "params": "params", "y": "error"}
    points = read_points(example_isoflop_points(), *columns.values())
    found = isoflop(points, **columns, flops_per_param_sample=FLOPS_PER_PARAM_SAMPLE)
    print(f"N_opt grows as C^{found.params.exponent:.2f}, D_opt as C^{found.samples.exponent:.2f}")
    drawing = isoflop_parabolas(points, found, **columns)
    write(drawing, FIGURE)


if __name__ == "__main__":
    run(main)
