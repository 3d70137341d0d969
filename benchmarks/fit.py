"""How fast is the parametric law fitted, against the loop over starts with scipy's L-BFGS that everyone writes?

    python benchmarks/fit.py              # the loop on some of the starts, scaled: under a minute
    python benchmarks/fit.py --whole      # the loop on all 4,500 starts: half an hour

250 points, the objective of Hoffmann et al. 2022 (approach 3), the 4,500 starts of the recipe. The loop sees the same
data, objective and starts, and runs on one core as loops do; with differences for gradients (scipy's default) and with
analytic ones. Both take turns with ours in one process. The minima are compared: ours may not be higher by more than
1e-9 of the loop's. Writes JSON beside the table.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize
from scipy.special import huber, logsumexp, softmax

from arvis_scale.atomic import write_json
from scaling_studies import LawFit, fit_law
from scaling_studies.loss_laws import HUBER_DELTA, Parametric

Array = NDArray[np.float64]
RESULTS = Path(__file__).parent / "results"
NUM_POINTS, NUM_BOOTSTRAP = 250, 4000
# Starts of the loop that are run and scaled: every so many of the grid, so that all corners of it are there.
QUICK_STARTS = {"differences": 12, "analytic": 60}
TOLERANCE = 1e-9


def make_points() -> dict[str, Array]:
    """Return 250 points with 0.5% noise and 3% outliers, over the range of Hoffmann et al."""
    rng = np.random.default_rng(0)
    params = 10 ** rng.uniform(7.6, 10.2, NUM_POINTS)
    samples = 10 ** rng.uniform(18.8, 21.5, NUM_POINTS) / 6 / params
    loss = 1.82 + 482 / params**0.348 + 2085 / samples**0.366
    loss *= np.exp(0.005 * rng.standard_normal(NUM_POINTS))
    loss[rng.random(NUM_POINTS) < 0.03] *= 1.05
    return {"params": params, "samples_seen": samples, "loss": loss}


def objective(theta: Array, log_n: Array, log_d: Array, log_loss: Array) -> float:
    """Return the summed Huber loss of log L, as published code computes it."""
    e, a, b, alpha, beta = theta
    terms = np.stack([np.full_like(log_n, e), a - alpha * log_n, b - beta * log_d])
    return float(np.sum(huber(HUBER_DELTA, logsumexp(terms, axis=0) - log_loss)))


def objective_and_gradient(theta: Array, log_n: Array, log_d: Array, log_loss: Array) -> tuple[float, Array]:
    """Return the same with its gradient."""
    e, a, b, alpha, beta = theta
    terms = np.stack([np.full_like(log_n, e), a - alpha * log_n, b - beta * log_d])
    residual = logsumexp(terms, axis=0) - log_loss
    slopes = softmax(terms, axis=0) * np.clip(residual, -HUBER_DELTA, HUBER_DELTA)
    gradient = np.array([*slopes.sum(axis=1), -(slopes[1] @ log_n), -(slopes[2] @ log_d)])
    return float(np.sum(huber(HUBER_DELTA, residual))), gradient


def run_loop(starts: Array, points: dict[str, Array], *, analytic: bool) -> dict[str, Any]:
    """Return seconds, lowest minimum and number of converged starts of the loop."""
    arguments = tuple(np.log(points[name]) for name in ("params", "samples_seen", "loss"))
    function: Callable[..., Any] = objective_and_gradient if analytic else objective
    begin = time.perf_counter()
    found = [
        minimize(function, start, args=arguments, jac=analytic, method="L-BFGS-B", options={"maxiter": 15_000})
        for start in starts
    ]
    seconds = time.perf_counter() - begin
    best = min(found, key=lambda result: result.fun)
    return {
        "seconds": seconds,
        "objective": float(best.fun),
        "num_starts": len(starts),
        "num_converged": int(sum(bool(result.success) for result in found)),
        "theta": best.x.tolist(),
    }


def run_ours(points: dict[str, Array]) -> tuple[LawFit, dict[str, Any]]:
    """Return the fit and its seconds, minimum and starts."""
    begin = time.perf_counter()
    fit = fit_law(points, "parametric", x=("params", "samples_seen"), y="loss")
    seconds = time.perf_counter() - begin
    found = fit.result
    return fit, {
        "seconds": seconds,
        "objective": fit.objective,
        "num_starts": found.num_starts,
        "num_converged": found.num_converged,
        "num_at_best": found.num_at_best,
        "params": fit.params,
    }


def run_bootstrap(fit: LawFit) -> dict[str, Any]:
    """Return the seconds of 4,000 bootstrap samples of the rows, and how many converged."""
    begin = time.perf_counter()
    samples = fit.samples("cases", NUM_BOOTSTRAP)
    return {
        "seconds": time.perf_counter() - begin,
        "num_samples": samples.num_drawn,
        "num_converged": len(samples.theta),
    }


def measure(whole: bool) -> dict[str, Any]:
    """Return ours, both loops (with their ratio to ours in seconds a start) and the bootstrap."""
    points = make_points()
    starts = Parametric(np.ones((2, 1)), np.ones(1)).starts()
    run_ours(points)  # the first call pays for imports and threads
    turns = [run_ours(points)]
    loops: dict[str, dict[str, Any]] = {}
    for name, quick in QUICK_STARTS.items():
        chosen = starts if whole else starts[np.linspace(0, len(starts) - 1, quick).astype(int)]
        loops[name] = run_loop(chosen, points, analytic=name == "analytic")
        turns.append(run_ours(points))
    ours = turns[0][1] | {"seconds": float(np.median([turn[1]["seconds"] for turn in turns]))}
    for loop in loops.values():
        loop["seconds_all_starts"] = loop["seconds"] * len(starts) / loop["num_starts"]
        loop["ratio"] = loop["seconds_all_starts"] / ours["seconds"]
        if ours["objective"] > loop["objective"] * (1 + TOLERANCE):
            raise ValueError(f"our minimum {ours['objective']:.17g} is above the loop's {loop['objective']:.17g}")
    return {"ours": ours, "loops": loops, "bootstrap": run_bootstrap(turns[0][0])}


def print_table(measured: dict[str, Any], console: Console) -> None:
    """Print one row per contender."""
    table = Table("parametric law, 250 points", "starts run", "converged", "s for 4,500", "ratio", "minimum")
    ours, bootstrap = measured["ours"], measured["bootstrap"]
    reached = f"{ours['num_converged']:,} ({ours['num_at_best']:,} at the best)"
    table.add_row(
        "ours", f"{ours['num_starts']:,}", reached, f"{ours['seconds']:.2f}", "1", f"{ours['objective']:.12g}"
    )
    for name, loop in measured["loops"].items():
        cells = f"{loop['num_starts']:,}", f"{loop['num_converged']:,}", f"{loop['seconds_all_starts']:.0f}"
        table.add_row(f"scipy loop, {name}", *cells, f"{loop['ratio']:.0f}x", f"{loop['objective']:.12g}")
    console.print(table)
    console.print(
        f"{bootstrap['num_samples']:,} bootstrap samples: {bootstrap['seconds']:.1f} s, "
        f"{bootstrap['num_converged']:,} converged"
    )


def main() -> None:
    """Measure, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the loop on some starts, scaled; this is the default")
    parser.add_argument("--whole", action="store_true", help="the loop on all 4,500 starts")
    parser.add_argument("--output", type=Path, help="JSON file; by default benchmarks/results/DATE-HOST-fit.json")
    arguments, console = parser.parse_args(), Console(width=120)
    now = datetime.now(timezone.utc)
    measured = measure(arguments.whole)
    print_table(measured, console)
    machine = {
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
    path = arguments.output or RESULTS / f"{now:%Y-%m-%d}-{platform.node()}-fit.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        path, {"schema_version": 1, "measured": now.isoformat(timespec="seconds"), "machine": machine, **measured}
    )
    console.print(f"wrote {path}")


if __name__ == "__main__":
    main()
