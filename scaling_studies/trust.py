"""Whether a fitted law can be trusted beyond its data, and which law to prefer on the data at hand.

The extrapolation test is that of Alabdulmohsin et al. 2022 (arXiv 2209.06640, section 4): fit where x is at most half
of its largest value, score the root mean square of the log error above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_studies.extent import ScoredReach
from scaling_studies.fit_input import Points
from scaling_studies.law_fit import LawFit, fit_law
from scaling_studies.law_names import law_class
from scaling_studies.laws import Array


@dataclass(frozen=True, eq=False)
class Extrapolation:
    """Outcome of an extrapolation test along one variable.

    `rmse` is of log(predicted / measured) over the `num_scored` rows above `cutoff`; `reach` is the factor beyond the
    fitted data up to which rows were scored: claims further out are not covered by this test.
    """

    variable: str
    cutoff: float
    rmse: float
    bias: float
    num_fitted: int
    num_scored: int
    reach: float
    fit: LawFit

    @property
    def tested(self) -> ScoredReach:
        """What of the test a claim beyond the data rests on."""
        return ScoredReach(self.variable, self.reach, self.rmse)

    @property
    def validated(self) -> float:
        """`reach` where the law held, 1 where it missed by more than `extent.LARGEST_LOG_ERROR`."""
        return self.tested.validated


def extrapolation_test(
    points: Points,
    law: str,
    *,
    x: str | Sequence[str],
    y: str,
    along: str | None = None,
    share: float = 0.5,
    **options: Any,
) -> Extrapolation:
    """Fit the rows with `along` (by default the last variable of x) at most `share` of its largest value, score the
    rest.

    `options` go to `fit_law`. Raises `ValueError` when the lower part has too few points for the law.
    """
    table, names = _table_and_names(points, x)
    along = along or names[-1]
    if along not in names:
        raise ValueError(f"along is {along!r}: expected one of {', '.join(names)}")
    _check_share(share)
    values = table[along].to_numpy(dtype=np.float64)
    cutoff = share * float(values.max())
    lower, upper = table[values <= cutoff], table[values > cutoff]
    try:
        fit = fit_law(lower, law, x=x, y=y, **options)
    except ValueError as error:
        raise ValueError(f"extrapolation test of law {law!r}, {along} <= {cutoff:.4g}: {error}") from error
    miss = _log_error(fit, upper, y)
    reach = float(values.max()) / fit.x_range[along][1]
    return Extrapolation(along, cutoff, _rms(miss), float(miss.mean()), len(lower), len(upper), reach, fit)


@dataclass(frozen=True)
class CrossValidation:
    """Root mean square of the log error on left-out groups: `rmse` over all rows, `by_group` per value of `column`."""

    column: str
    rmse: float
    by_group: dict[float, float]
    failed: dict[float, str]


def cross_validation(
    points: Points, law: str, *, x: str | Sequence[str], y: str, by: str, **options: Any
) -> CrossValidation:
    """Leave out all rows of one value of column `by` (a model size, a data size) at a time and predict them.

    A value without which the law cannot be fitted is in `failed` with the reason. Raises `ValueError` when that is so
    for all of them.
    """
    table, _ = _table_and_names(points, x)
    if by not in table:
        raise ValueError(f"by is {by!r}: points have no such column")
    by_group, failed, errors = {}, {}, []
    for value, rows in table.groupby(by, sort=True):
        try:
            fit = fit_law(table.drop(index=rows.index), law, x=x, y=y, **options)
        except ValueError as error:
            failed[float(value)] = str(error)  # type: ignore[arg-type]
            continue
        errors.append(_log_error(fit, rows, y))
        by_group[float(value)] = _rms(errors[-1])  # type: ignore[arg-type]
    if not errors:
        raise ValueError(f"no {by} can be left out: {next(iter(failed.values()))}")
    return CrossValidation(by, _rms(np.concatenate(errors)), by_group, failed)


def information_criteria(fit: LawFit) -> dict[str, float]:
    """AIC, AICc and BIC of normal residuals of unknown variance (Burnham and Anderson 2002); for laws on the same rows.

    The variance counts as a parameter. Comparable between fits on one scale only: not between log y and y. AICc is inf
    where there are too few points for it.
    """
    weighted = fit.residuals * np.sqrt(fit.data.weight)
    num_points, num_params = len(weighted), fit.num_free + 1
    variance = max(float(np.mean(weighted**2)), 1e-300)
    likelihood = num_points * (np.log(2 * np.pi * variance) + 1)
    left = num_points - num_params - 1
    aic = likelihood + 2 * num_params
    corrected = aic + 2 * num_params * (num_params + 1) / left if left > 0 else np.inf
    return {"aic": aic, "aicc": corrected, "bic": likelihood + num_params * float(np.log(num_points))}


def rank_laws(
    points: Points,
    laws: Sequence[str],
    *,
    x: str | Sequence[str],
    y: str,
    share: float = 0.5,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """One row per law, best extrapolation first (of equals to three digits that of fewest parameters); laws that cannot
    be fitted or tested stand last with the reason.

    Columns: `law`, `num_params`, `rmse` (of log error on the rows it was fitted to), `extrapolation_rmse`, `num_fitted`
    and `num_scored` (rows of that test, which `share` divides as in `extrapolation_test`), `aic`, `aicc`, `bic`,
    `validated` (the factor beyond the fitted part that was scored, 1 for a miss) and `reason`. `options` are those of
    `fit_law` per law. All laws must be on one scale: accuracies are not ranked with errors.
    """
    _check_share(share)
    scales = {law_class(law).link for law in laws}
    if len(scales) > 1:
        raise ValueError(f"laws {', '.join(laws)} are not on one scale: rank laws of errors apart from accuracies")
    rows = [_ranked(points, law, x, y, share, dict((options or {}).get(law, {}))) for law in laws]
    table = pd.DataFrame(rows, columns=list(_RANKED))
    digits = table["extrapolation_rmse"].map(lambda rmse: float(f"{rmse:.3g}"))
    order = table.assign(digits=digits).sort_values(["digits", "num_params", "aicc", "law"], na_position="last").index
    return table.loc[order].reset_index(drop=True)


_TEST = ("extrapolation_rmse", "num_fitted", "num_scored")
_RANKED = ("law", "num_params", "rmse", *_TEST, "aic", "aicc", "bic", "validated", "reason")


def _ranked(
    points: Points, law: str, x: str | Sequence[str], y: str, share: float, options: dict[str, Any]
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_RANKED, np.nan) | {"law": law, "reason": None}
    try:
        fit = fit_law(points, law, x=x, y=y, **options)
        row |= {
            "num_params": fit.num_free,
            "rmse": _rms(_log_error(fit, _table_and_names(points, x)[0], y)),
            **information_criteria(fit),
        }
        test = extrapolation_test(points, law, x=x, y=y, share=share, **options)
    except ValueError as error:
        return row | {"reason": str(error)}
    scored = zip(_TEST, (test.rmse, test.num_fitted, test.num_scored), strict=True)
    return row | dict(scored) | {"validated": test.validated}


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"share is {share}: expected a fraction between 0 and 1")


def _table_and_names(points: Points, x: str | Sequence[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    names = (x,) if isinstance(x, str) else tuple(x)
    table = points if isinstance(points, pd.DataFrame) else pd.DataFrame(dict(points))
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(f"points have no column {', '.join(map(repr, missing))}")
    return table, names


def _log_error(fit: LawFit, rows: pd.DataFrame, y: str) -> Array:
    """log(predicted / measured) per row; an error of 0 has none and is left out."""
    measured: NDArray[np.float64] = rows[y].to_numpy(dtype=np.float64)
    return np.log(fit.predict(rows)[measured > 0]) - np.log(measured[measured > 0])


def _rms(error: Array) -> float:
    return float(np.sqrt(np.mean(np.square(error))))
