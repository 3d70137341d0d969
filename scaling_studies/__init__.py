"""Scaling curves of vision pretraining: from points to fitted laws, efficiency ratios, figures and one report.

    from scaling_studies import fit_law, load_points
    points = load_points("runs.csv", columns={"params": "model_size", "samples_seen": "images", "loss": "val"})
    fit = fit_law(points, law="m4", x="samples_seen", y="error")
    fit = fit_law(points, law="parametric", x=("params", "samples_seen"), y="loss")
    fit.params                     # {"E": 1.69, "A": ..., "B": ..., "alpha": ..., "beta": ...}: the formula's own names
    fit.objective                  # the minimised value: sum of the Huber loss (parametric) or of squares, of log y
    fit.predict(params, samples)   # arrays in the order of x or by their names, or one DataFrame with x's columns
    fit.interval("alpha", 0.95)    # (low, high); method="cases", "residuals", "runs", "noise" or "profile"
    fit.band(params, samples)      # (low, high) of the fitted curve, pointwise
    fit.undetermined(), fit.outliers, fit.warnings, fit.summary()

Laws by name: m1 m2 m3 m4 zhai bnsl (num_breaks=n) accuracy in one variable, parametric in (params, samples_seen),
data_constrained in (params, samples_seen, unique_images). `fixed={"y_0": 0.999}` holds parameters of any law;
`fixed={}` frees what a law holds by itself (R_D*, R_N*). A fit that did not converge raises `ValueError`.

Two methods: `efficiency(a, b, at=0.2)` is one ratio with its interval, without `at` a table over all common qualities;
`over="params", held={"samples_seen": 1e9}` picks the variable of a law in two, `over="compute"` the least compute.
`crossings(a, b)` says where two curves cross. Runs not yet made: `predict_quality`, `needed`, `cheapest`.

Whether to trust it: `extrapolation_test`, `cross_validation`, `rank_laws` (`trust`). Compute (`compute`): `envelope`
(approach 1), `isoflop` (approach 2), `optimal_allocation` (approach 3).

Read in this order: `tables` (the tables of others), `laws`, `forms` and `law_names` (what is fitted), `law_fit`,
`intervals`, `cautions` and `extent` (how, and how far), `trust`, `compute`, `slices`, `efficiency`, `predictions`; for
a study folder `points` (its table), `collect` (run folders -> points), `curves`, `study`, `figures`, `report`,
and `commands`; `cli` is the command line of all of it. The package needs no training code and no GPU library.
"""

from scaling_studies.compute import envelope, isoflop, optimal_allocation
from scaling_studies.efficiency import crossings, efficiency
from scaling_studies.law_fit import LawFit, fit_law
from scaling_studies.predictions import cheapest, needed, predict_quality
from scaling_studies.tables import learning_curve, load_points
from scaling_studies.trust import cross_validation, extrapolation_test, rank_laws

__all__ = [
    "LawFit",
    "cheapest",
    "cross_validation",
    "crossings",
    "efficiency",
    "envelope",
    "extrapolation_test",
    "fit_law",
    "isoflop",
    "learning_curve",
    "load_points",
    "needed",
    "optimal_allocation",
    "predict_quality",
    "rank_laws",
]
