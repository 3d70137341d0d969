"""`arvis-scale study ...`: runs to points, laws, figures and a report."""

from __future__ import annotations

from arvis_scale.cli.app import StudyFolder, console, study_app


@study_app.command("collect")
def study_collect(folder: StudyFolder) -> None:
    """Gather the runs' results into DIR/points.csv.

    Example: `arvis-scale study collect runs/demo`
    """
    from scaling_studies import commands

    console.print(commands.collect(folder))


@study_app.command("fit")
def study_fit(folder: StudyFolder) -> None:
    """Fit laws to DIR/points.csv and write DIR/fits.json.

    Example: `arvis-scale study fit runs/demo`
    """
    from scaling_studies import commands

    console.print(commands.fit(folder))


@study_app.command("plot")
def study_plot(folder: StudyFolder) -> None:
    """Draw points and laws into DIR/figures.

    Example: `arvis-scale study plot runs/demo`
    """
    from scaling_studies import commands

    for path in commands.plot(folder):
        console.print(path)


@study_app.command("report")
def study_report(folder: StudyFolder) -> None:
    """Write DIR/report.html, one self-contained page.

    Example: `arvis-scale study report runs/demo`
    """
    from scaling_studies import commands

    console.print(commands.report(folder))
