"""Contours of equal error in the plane of N and D, with the compute-optimal line (approach 3).

    python -m scaling_studies.scripts.plot_iso_loss [POINTS.csv] [--column OURS=THEIRS] [--where COLUMN=VALUE]

The table needs the columns `params, samples_seen, error`; one panel per `objective`, where there is that column.

It prints for the simulated points:

    XTRA: alpha 0.43, beta 0.38
    AIM: alpha 0.40, beta 0.39
    figures/iso_loss.png
    figures/iso_loss.svg
    figures/iso_loss.pdf
    figures/iso_loss.json
"""

from __future__ import annotations

from dataclasses import replace

from scaling_studies import fit_law
from scaling_studies.example import example_points
from scaling_studies.figures import fitted_surface, iso_loss_contours
from scaling_studies.scripts.table_argument import by_method, read_points, run, write
from scaling_studies.statements import method_name

X = ("params", "samples_seen")
FIGURE = "figures/iso_loss"


def main() -> None:
    points = read_points(example_points(), *X, "error")
    surfaces = []
    for method, rows in by_method(points).items():
        fit = fit_law(rows, law="parametric", x=X, y="error")
        print(f"{method_name(method)}: alpha {fit.params['alpha']:.2f}, beta {fit.params['beta']:.2f}")
        surfaces.append(replace(fitted_surface(fit), title=method_name(method)))
    drawing = iso_loss_contours(surfaces, y="error")
    write(drawing, FIGURE)


if __name__ == "__main__":
    run(main)
