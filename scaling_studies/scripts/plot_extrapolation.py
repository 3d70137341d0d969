"""Laws fitted to the lower half of samples seen, seen on the upper half.

    python -m scaling_studies.scripts.plot_extrapolation [POINTS.csv] [--column OURS=THEIRS] [--where COLUMN=VALUE]

The table needs the columns `samples_seen, error`; with `objective` and `params`, the most frequent of each is drawn.

It prints for the simulated points:

    objective xtra: 32 of 64 rows (--where objective=... picks another)
    params 300M: 8 of 32 rows (--where params=... picks another)
    m1: 6 points fitted, 2 scored, log error 0.08
    m2: 6 points fitted, 2 scored, log error 0.006
    figures/extrapolation.png
    figures/extrapolation.svg
    figures/extrapolation.pdf
    figures/extrapolation.json
"""

from __future__ import annotations

from scaling_studies import extrapolation_test
from scaling_studies.example import example_points
from scaling_studies.figures import checked_laws, extrapolation_checks
from scaling_studies.scripts.table_argument import read_points, run, with_most_rows, write

LAWS = ("m1", "m2")
FIGURE = "figures/extrapolation"


def main() -> None:
    points = with_most_rows(read_points(example_points(), "samples_seen", "error"), "objective")
    rows = with_most_rows(points, "params")
    tests = {law: extrapolation_test(rows, law=law, x="samples_seen", y="error") for law in LAWS}
    for law, test in tests.items():
        print(f"{law}: {test.num_fitted} points fitted, {test.num_scored} scored, log error {test.rmse:.1g}")
    drawing = extrapolation_checks([checked_laws("", rows, tests, y="error")], y="error")
    write(drawing, FIGURE)


if __name__ == "__main__":
    run(main)
