"""Figures of scaling studies: each a function that returns a `Drawing`, written as PNG, SVG, PDF and JSON.

    from scaling_studies.figures import error_vs_data
    drawing = error_vs_data(points, fit, x="samples_seen", y="error", by="params")
    drawing.save("figures/error_vs_data")     # .png .svg .pdf, and .json with every number on it
    drawing.figure                            # the matplotlib figure, to change before saving
    drawing.warnings                          # the sentences under the picture

`draw_study` and `save_figures` make all figures of a study folder, `saved_figures` reads them back. A line is dashed
beyond its data, and the figure says what of that was validated; a fit that did not converge raises instead of being
drawn.
"""

from scaling_studies.figures.drawing import Drawing, NothingToDrawError
from scaling_studies.figures.efficiency_ratio import RatioCurve, efficiency_ratio, ratio_curve
from scaling_studies.figures.error_curves import error_vs_data, error_vs_params
from scaling_studies.figures.error_vs_compute import error_vs_compute
from scaling_studies.figures.extrapolation import Check, checked_laws, extrapolation_checks
from scaling_studies.figures.iso_loss import Surface, fitted_surface, iso_loss_contours
from scaling_studies.figures.isoflop import isoflop_parabolas
from scaling_studies.figures.residuals import Residuals, fit_residuals, residual_panels
from scaling_studies.figures.saved import save_figures, saved_figures
from scaling_studies.figures.series import Line, Series, fitted_line
from scaling_studies.figures.study import FIGURES, StudyFigures, draw_study

__all__ = [
    "FIGURES",
    "Check",
    "Drawing",
    "Line",
    "NothingToDrawError",
    "RatioCurve",
    "Residuals",
    "Series",
    "StudyFigures",
    "Surface",
    "checked_laws",
    "draw_study",
    "efficiency_ratio",
    "error_vs_compute",
    "error_vs_data",
    "error_vs_params",
    "extrapolation_checks",
    "fit_residuals",
    "fitted_line",
    "fitted_surface",
    "iso_loss_contours",
    "isoflop_parabolas",
    "ratio_curve",
    "residual_panels",
    "save_figures",
    "saved_figures",
]
