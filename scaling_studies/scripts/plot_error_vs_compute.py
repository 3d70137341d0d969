"""Error against training compute, with the lower envelope and its power law (approach 1).

    python -m scaling_studies.scripts.plot_error_vs_compute [POINTS.csv] [--column OURS=THEIRS] [--where COLUMN=VALUE]

The table needs the columns `flops, error`; `objective` gives the markers.

It prints for the simulated points:

    envelope: error = 28.6 C^-0.118 through 5 bins
    envelope: 28.6 C^-0.118: flops drawn to 10 times beyond the data (dashed): no extrapolation was validated.
    figures/error_vs_compute.png
    figures/error_vs_compute.svg
    figures/error_vs_compute.pdf
    figures/error_vs_compute.json
"""

from __future__ import annotations

from scaling_studies import envelope
from scaling_studies.example import example_points
from scaling_studies.figures import error_vs_compute
from scaling_studies.scripts.table_argument import read_points, run, write

NUM_BINS = 5
UNTIL = 10.0  # times the largest compute: dashed there
FIGURE = "figures/error_vs_compute"


def main() -> None:
    points = read_points(example_points(), "flops", "error")
    found = envelope(points, compute="flops", y="error", num_bins=NUM_BINS)
    print(f"envelope: error = {found.line.scale:.3g} C^{found.line.exponent:.3g} through {len(found.table)} bins")
    drawing = error_vs_compute(points, found, y="error", until=UNTIL * points["flops"].max())
    write(drawing, FIGURE)


if __name__ == "__main__":
    run(main)
