"""How many times the samples one method needs of another, over all errors that both reach.

    python -m scaling_studies.scripts.plot_efficiency [POINTS.csv]

The table needs the columns `objective, params, samples_seen, error`; the rows of PARAMS are compared.

It prints for the simulated points:

    at an error of 0.30 xtra needs 3.0 times fewer samples
    XTRA over AIM: where the band reaches the edge its interval is open.
    figures/efficiency.png
    figures/efficiency.svg
    figures/efficiency.pdf
    figures/efficiency.json
"""

from __future__ import annotations

import sys

from scaling_studies import efficiency, fit_law, load_points
from scaling_studies.example import example_points
from scaling_studies.figures import efficiency_ratio, ratio_curve
from scaling_studies.statements import method_name

METHODS = ("xtra", "aim")
PARAMS = 8e7
LAW = "m2"
FIGURE = "figures/efficiency"


def main() -> None:
    points = load_points(sys.argv[1]) if len(sys.argv) > 1 else example_points()
    rows = points[points["params"] == PARAMS]
    first, second = (fit_law(rows[rows["objective"] == name], law=LAW, x="samples_seen", y="error") for name in METHODS)
    table = efficiency(first, second)
    middle = table.iloc[len(table) // 2]
    print(f"at an error of {middle['quality']:.2f} {METHODS[0]} needs {middle['ratio']:.1f} times fewer samples")
    drawing = efficiency_ratio(
        [ratio_curve(" over ".join(map(method_name, METHODS)), table)], over="samples_seen", y="error"
    )
    for warning in drawing.warnings:
        print(warning)
    for path in drawing.save(FIGURE):
        print(path)


if __name__ == "__main__":
    main()
