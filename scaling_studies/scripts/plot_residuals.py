"""Residuals of a law in N and D against both of its variables; rows far off the law are ringed.

    python -m scaling_studies.scripts.plot_residuals [POINTS.csv] [--column OURS=THEIRS] [--where COLUMN=VALUE]

The table needs the columns `params, samples_seen, error`; one law per `objective`, where there is that column.

It prints for the simulated points:

    rows far off the law: none
    figures/residuals.png
    figures/residuals.svg
    figures/residuals.pdf
    figures/residuals.json
"""

from __future__ import annotations

from scaling_studies import fit_law
from scaling_studies.example import example_points
from scaling_studies.figures import fit_residuals, residual_panels
from scaling_studies.scripts.table_argument import by_method, read_points, run, write
from scaling_studies.statements import method_name

X = ("params", "samples_seen")
LAW = "parametric"
FIGURE = "figures/residuals"


def main() -> None:
    points = read_points(example_points(), *X, "error")
    fits = {name: fit_law(rows, law=LAW, x=X, y="error") for name, rows in by_method(points).items()}
    panels = {x: [fit_residuals(method_name(name), fit, x) for name, fit in fits.items()] for x in X}
    outliers = [str(row) for fit in fits.values() for row in fit.outliers]
    print(f"rows far off the law: {', '.join(outliers) or 'none'}")
    drawing = residual_panels(panels, outliers=outliers)
    write(drawing, FIGURE)


if __name__ == "__main__":
    run(main)
