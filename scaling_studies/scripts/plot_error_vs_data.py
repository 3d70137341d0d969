"""Error against samples seen, one curve per model size, each a slice of one law in N and D.

    python -m scaling_studies.scripts.plot_error_vs_data [POINTS.csv] [--column OURS=THEIRS] [--where COLUMN=VALUE]

The table needs the columns `params, samples_seen, error`; with `objective`, the most frequent one is drawn.

It prints for the simulated points:

    objective xtra: 32 of 64 rows (--where objective=... picks another)
    fitted to the lower half, log error above it: 0.005; validated to a factor of 2
    5M, 20M, 80M, 300M: samples seen drawn to 3 times beyond the data (dashed): only a factor of 2 was validated.
    figures/error_vs_data.png
    figures/error_vs_data.svg
    figures/error_vs_data.pdf
    figures/error_vs_data.json
"""

from __future__ import annotations

from scaling_studies import extrapolation_test, fit_law
from scaling_studies.example import example_points
from scaling_studies.figures import error_vs_data
from scaling_studies.scripts.table_argument import read_points, run, with_most_rows, write

X = ("params", "samples_seen")
UNTIL = 3.0  # times the largest number of samples: dashed there
FIGURE = "figures/error_vs_data"


def main() -> None:
    points = with_most_rows(read_points(example_points(), *X, "error"), "objective")
    fit = fit_law(points, law="parametric", x=X, y="error")
    test = extrapolation_test(points, law="parametric", x=X, y="error")
    print(
        f"fitted to the lower half, log error above it: {test.rmse:.1g}; validated to a factor of {test.validated:.2g}"
    )
    until = UNTIL * points["samples_seen"].max()
    drawing = error_vs_data(points, fit, y="error", until=until, validated=test.validated)
    write(drawing, FIGURE)


if __name__ == "__main__":
    run(main)
