"""Do the intervals cover? Known constants, new noise again and again, and how often each 95% interval holds the truth.

Of parameters, and on curves of few points of the band, of a prediction at twice the data and of an efficiency.

python -m scaling_studies.coverage                   # 200 repeats of every law; about 40 minutes
python -m scaling_studies.coverage --laws m2 --repeats 50 --output coverage.json
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from arvis_scale.atomic import write_json
from scaling_studies.efficiency import efficiency
from scaling_studies.forms import Form
from scaling_studies.intervals import METHODS
from scaling_studies.law_fit import fit_law
from scaling_studies.law_names import law_for_data
from scaling_studies.laws import Array

LEVEL = 0.95
# The end of a 95% interval from so many samples is known to a few per cent of its length.
NUM_SAMPLES = 300
# What the second method of an efficiency needs, and the sizes of the tables that others publish.
NEEDS = 3.0
FEW_POINTS = {"m1": (3, 5, 7, 15), "m2": (5, 7, 15)}


@dataclass(frozen=True)
class Case:
    """A law with known constants on a design `x` (`V x n`); `noise` is the deviation of log y (accuracies: y)."""

    law: str
    params: dict[str, float]
    x: Array
    noise: float

    @property
    def form(self) -> Form:
        return law_for_data(self.law, self.x, np.full(self.x.shape[1], 0.5))

    def true_y(self) -> Array:
        """y without noise, `n`."""
        form = self.form
        return form.predict(self.x, form.from_params(np.array([[self.params[name] for name in form.names()]])))[0]

    def points(self, rng: np.random.Generator | None = None) -> dict[str, Array]:
        """Columns `x0, x1, ..., y`, with noise where there is a generator."""
        y = self.true_y()
        if rng is not None:
            noise = self.noise * rng.standard_normal(len(y))
            y = y * np.exp(noise) if self.form.link == "log" else np.clip(y + noise, 0.0, 1.0)
        return {**{f"x{i}": row for i, row in enumerate(self.x)}, "y": y}

    def x_names(self) -> tuple[str, ...]:
        return tuple(f"x{i}" for i in range(len(self.x)))


def _curve(num_points: int = 24) -> Array:
    return np.geomspace(1e3, 1e8, num_points)[None]


def _sizes_and_data(num_sizes: int = 8, num_seen: int = 8) -> Array:
    sizes, seen = np.meshgrid(np.geomspace(1e7, 1e10, num_sizes), np.geomspace(1e8, 1e12, num_seen))
    return np.stack([sizes.ravel(), seen.ravel()])


def _with_repeats() -> Array:
    x = np.tile(_sizes_and_data(6, 6), 2)
    repeats = np.repeat([1.0, 30.0], 36)
    return np.concatenate([x, (x[1] / repeats)[None]])


_CHINCHILLA = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
CASES = {
    case.law: case
    for case in (
        Case("m1", {"b": 2.0, "c": -0.2}, _curve(), 0.02),
        Case("m2", {"y_inf": 0.08, "b": 2.0, "c": -0.3}, _curve(), 0.02),
        Case("m3", {"b": 2.0, "c": -0.3, "g": 1e-6}, _curve(), 0.02),
        Case("m4", {"y_inf": 0.1, "y_0": 0.9, "a": 0.6, "b": 60.0, "c": -0.5}, _curve(40), 0.01),
        Case("zhai", {"c": 0.1, "a": 3.0, "b": 0.3, "d": 5e3}, _curve(40), 0.01),
        Case("bnsl", {"a": 0.05, "b": 1.0, "c0": 0.05, "c1": 0.4, "d1": 1e5, "f1": 0.3}, _curve(60), 0.005),
        Case("accuracy", {"chance": 0.05, "ceiling": 0.8, "x_0": 3e5, "k": 0.7}, _curve(40), 0.01),
        Case("parametric", _CHINCHILLA, _sizes_and_data(), 0.002),
        Case("data_constrained", _CHINCHILLA | {"R_D*": 15.39, "R_N*": 5.31}, _with_repeats(), 0.002),
    )
}


def coverage(case: Case, num_repeats: int, *, method: str | None = None) -> dict[str, float]:
    """Per parameter the fraction of repeats whose 95% interval (by `method` of `LawFit.interval`) holds the truth.

    A held parameter is left out. `fits` is the fraction of repeats that converged: the others count for nothing.
    """
    held = case.form.held
    names = [name for name in case.params if name not in held]
    covered, num_fits = dict.fromkeys(names, 0), 0
    for repeat in range(num_repeats):
        points = case.points(np.random.default_rng(repeat))
        try:
            fit = fit_law(points, case.law, x=case.x_names(), y="y", seed=repeat)
        except ValueError:
            continue
        num_fits += 1
        for name in names:
            low, high = fit.interval(name, LEVEL, method=method, num_samples=NUM_SAMPLES)
            covered[name] += low <= case.params[name] <= high
    return {name: count / max(num_fits, 1) for name, count in covered.items()} | {"fits": num_fits / num_repeats}


def curve_coverage(case: Case, num_points: int, num_repeats: int) -> dict[str, float]:
    """The same of what is read off a law in one variable on `num_points` points, by the default method.

    `band` is in the middle of the data, `ahead` at twice the largest x, `efficiency` that over a method that needs
    `NEEDS` times as much, at the quality of the middle.
    """
    case = replace(case, x=_curve(num_points))
    slower = replace(case, x=NEEDS * case.x)
    low, high = case.x[0, 0], case.x[0, -1]
    places = np.array([np.sqrt(low * high), 2 * high])
    truth = replace(case, x=places[None]).true_y()
    covered, num_fits = dict.fromkeys(("band", "ahead", "efficiency"), 0), 0
    for repeat in range(num_repeats):
        rng = np.random.default_rng(repeat)
        try:
            first, second = (
                fit_law({"x": each.x[0], "y": case.points(rng)["y"]}, case.law, x="x", y="y", seed=repeat)
                for each in (case, slower)
            )
            ratio = efficiency(first, second, at=float(truth[0]))
        except ValueError:
            continue
        num_fits += 1
        ends = np.array(first.band(places, level=LEVEL))
        held = (ends[0] <= truth) & (truth <= ends[1])
        covered["band"] += int(held[0])
        covered["ahead"] += int(held[1])
        covered["efficiency"] += int(ratio.low <= NEEDS <= ratio.high)
    return {name: count / max(num_fits, 1) for name, count in covered.items()} | {"fits": num_fits / num_repeats}


def main() -> None:
    """Print one line per law: the fraction of intervals that hold the truth, per parameter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--laws", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--method", choices=("profile", *METHODS), help="by default that of the law's loss")
    parser.add_argument("--output", type=Path, help="JSON file, written again after every law")
    arguments = parser.parse_args()
    cases = {law: partial(coverage, CASES[law], method=arguments.method) for law in arguments.laws}
    for law in (law for law in FEW_POINTS if law in arguments.laws):
        for number in FEW_POINTS[law]:
            cases[f"{law}, {number} points"] = partial(curve_coverage, CASES[law], number)
    laws = {}
    for name, covers in cases.items():
        started = time.process_time()
        found = covers(num_repeats=arguments.repeats)
        print(f"{name}: " + ", ".join(f"{key} {share:.1%}" for key, share in found.items()), flush=True)
        seconds = round(time.process_time() - started, 1)
        laws[name] = {"repeats": arguments.repeats, "coverage": found, "cpu_seconds": seconds}
        if arguments.output:
            head = {"schema_version": 1, "level": LEVEL, "bootstrap_samples": NUM_SAMPLES}
            write_json(arguments.output, head | {"laws": laws})


if __name__ == "__main__":
    main()
