"""`arvis-scale study ...` is `python -m scaling_studies ...`: one command line under two names."""

from __future__ import annotations

import typer

from arvis_scale.cli.app import app


# Its own options and --help are those of the command line that it hands everything to.
@app.command(
    "study",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    short_help="Runs or tables to points, laws, efficiency, figures and a report.",
)
def study(context: typer.Context) -> None:
    """Points to laws, efficiency, predictions, figures and a report: of study folders and of any table."""
    from scaling_studies.cli import app as studies

    studies(args=context.args, prog_name="arvis-scale study", standalone_mode=False)
