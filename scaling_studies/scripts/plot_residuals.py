"""Residuals of a law in N and D against both of its variables; rows far off the law are ringed.

    python -m scaling_studies.scripts.plot_residuals [POINTS.csv]

The table needs the columns `objective, params, samples_seen, error`.

It prints for the simulated points:

    rows far off the law: none
    figures/residuals.png
    figures/residuals.svg
    figures/residuals.pdf
    figures/residuals.json
"""

from __future__ import annotations

import sys

from scaling_studies import fit_law, load_points
from scaling_studies.example import example_points
from scaling_studies.figures import fit_residuals, residual_panels
from scaling_studies.statements import method_name

X = ("params", "samples_seen")
LAW = "parametric"
FIGURE = "figures/residuals"


def main() -> None:
    points = load_points(sys.argv[1]) if len(sys.argv) > 1 else example_points()
    groups = {name: points[points["objective"] == name] for name in points["objective"].unique()}
    fits = {name: fit_law(rows, law=LAW, x=X, y="error") for name, rows in groups.items()}
    panels = {x: [fit_residuals(method_name(name), fit, x) for name, fit in fits.items()] for x in X}
    outliers = [str(row) for fit in fits.values() for row in fit.outliers]
    print(f"rows far off the law: {', '.join(outliers) or 'none'}")
    drawing = residual_panels(panels, outliers=outliers)
    for warning in drawing.warnings:
        print(warning)
    for path in drawing.save(FIGURE):
        print(path)


if __name__ == "__main__":
    main()
