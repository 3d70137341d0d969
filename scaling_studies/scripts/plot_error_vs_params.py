"""Error against parameters, one curve per number of samples seen, with a law fitted to each.

    python -m scaling_studies.scripts.plot_error_vs_params [POINTS.csv] [--column OURS=THEIRS] [--where COLUMN=VALUE]

The table needs the columns `params, samples_seen, error`; with `objective`, the most frequent one is drawn.

It prints for the simulated points:

    objective xtra: 32 of 64 rows (--where objective=... picks another)
    30M samples seen: m1 exponent -0.08
    100M samples seen: m1 exponent -0.10
    300M samples seen: m1 exponent -0.12
    600M samples seen: m1 exponent -0.13
    1B samples seen: m1 exponent -0.13
    2B samples seen: m1 exponent -0.14
    3B samples seen: m1 exponent -0.15
    4B samples seen: m1 exponent -0.15
    figures/error_vs_params.png
    figures/error_vs_params.svg
    figures/error_vs_params.pdf
    figures/error_vs_params.json
"""

from __future__ import annotations

from scaling_studies import fit_law
from scaling_studies.example import example_points
from scaling_studies.figures import error_vs_params
from scaling_studies.scripts.table_argument import read_points, run, with_most_rows, write
from scaling_studies.statements import count

LAW = "m1"
FIGURE = "figures/error_vs_params"


def main() -> None:
    points = with_most_rows(read_points(example_points(), "params", "samples_seen", "error"), "objective")
    fits = {}
    for samples in sorted(points["samples_seen"].unique()):
        rows = points[points["samples_seen"] == samples]
        try:
            fits[samples] = fit_law(rows, law=LAW, x="params", y="error")
            print(f"{count(samples)} samples seen: {LAW} exponent {fits[samples].params['c']:.2f}")
        except ValueError as error:
            print(f"{count(samples)} samples seen: no law ({error})")
    drawing = error_vs_params(points, fits, y="error")
    write(drawing, FIGURE)


if __name__ == "__main__":
    run(main)
