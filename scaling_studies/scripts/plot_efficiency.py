"""How many times the samples one method needs of another, over all errors that both reach.

    python -m scaling_studies.scripts.plot_efficiency [POINTS.csv] [--column OURS=THEIRS] [--where COLUMN=VALUE]

The table needs the columns `objective, samples_seen, error`: two methods are compared. With `params`, the most frequent
size is.

It prints for the simulated points:

    params 300M: 16 of 64 rows (--where params=... picks another)
    at an error of 0.28 xtra is 3.0 times as efficient as aim
    XTRA over AIM: where the band reaches the edge its interval is open.
    figures/efficiency.png
    figures/efficiency.svg
    figures/efficiency.pdf
    figures/efficiency.json
"""

from __future__ import annotations

from scaling_studies import efficiency, fit_law
from scaling_studies.example import example_points
from scaling_studies.figures import efficiency_ratio, ratio_curve
from scaling_studies.scripts.table_argument import read_points, run, two_methods, with_most_rows, write
from scaling_studies.statements import method_name

LAW = "m2"
FIGURE = "figures/efficiency"


def main() -> None:
    points = with_most_rows(read_points(example_points(), "samples_seen", "error"), "params")
    methods = two_methods(points)
    first, second = methods
    fits = [fit_law(rows, law=LAW, x="samples_seen", y="error") for rows in methods.values()]
    table = efficiency(*fits)
    middle = table.iloc[len(table) // 2]
    print(f"at an error of {middle['quality']:.2f} {first} is {middle['ratio']:.1f} times as efficient as {second}")
    drawing = efficiency_ratio(
        [ratio_curve(" over ".join(map(method_name, methods)), table)], over="samples_seen", y="error"
    )
    write(drawing, FIGURE)


if __name__ == "__main__":
    run(main)
