"""Laws fitted to the lower half of samples seen, seen on the upper half.

    python -m scaling_studies.scripts.plot_extrapolation [POINTS.csv]

The table needs the columns `params, samples_seen, error`; with `objective`, METHOD is drawn, at PARAMS.

It prints for the simulated points:

    m1: 6 points fitted, 2 scored, log error 0.07
    m2: 6 points fitted, 2 scored, log error 0.009
    figures/extrapolation.png
    figures/extrapolation.svg
    figures/extrapolation.pdf
    figures/extrapolation.json
"""

from __future__ import annotations

import sys

from scaling_studies import extrapolation_test, load_points
from scaling_studies.example import example_points
from scaling_studies.figures import checked_laws, extrapolation_checks

METHOD = "xtra"
PARAMS = 8e7
LAWS = ("m1", "m2")
FIGURE = "figures/extrapolation"


def main() -> None:
    points = load_points(sys.argv[1]) if len(sys.argv) > 1 else example_points()
    points = points[points["objective"] == METHOD] if "objective" in points else points
    rows = points[points["params"] == PARAMS]
    tests = {law: extrapolation_test(rows, law=law, x="samples_seen", y="error") for law in LAWS}
    for law, test in tests.items():
        print(f"{law}: {test.num_fitted} points fitted, {test.num_scored} scored, log error {test.rmse:.1g}")
    drawing = extrapolation_checks([checked_laws("80M parameters", rows, tests, y="error")], y="error")
    for warning in drawing.warnings:
        print(warning)
    for path in drawing.save(FIGURE):
        print(path)


if __name__ == "__main__":
    main()
