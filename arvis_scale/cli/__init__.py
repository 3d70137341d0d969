"""`arvis-scale`: one sub-command per verb, each a thin call into the package that does the work.

A `ValueError` is the user's to mend: it ends as one line and status 2, without a traceback.
"""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.markup import escape

# Importing a group's file adds its commands to the application.
from arvis_scale.cli import demo, plan, runs, shards, study, sweep, sweep_jobs, sweep_watch, tokens, weights  # noqa: F401
from arvis_scale.cli.app import app
from arvis_scale.engine.exit_status import BAD_INPUT, OUT_OF_MEMORY, STOPPED_BY_GUARD, GuardError, exit_status_of

TRAINING_PACKAGES = (
    "torch",
    "torchvision",
    "deepspeed",
    "webdataset",
    "open_clip",
    "timm",
    "tensorboard",
    "submitit",
    "safetensors",
    "huggingface_hub",
)


def main() -> None:
    """Run the command line."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("arvis_scale").setLevel(logging.INFO)
    try:
        app()
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in TRAINING_PACKAGES:
            raise
        _fail(
            f"this command needs {package}; install it with: pip install 'arvis-scale[train]' (in a clone: '.[train]')"
        )
    except GuardError as error:  # the same on all processes: one of them says it
        from arvis_scale.engine.launcher import is_first_process

        _fail(str(error) if is_first_process() else "", STOPPED_BY_GUARD)
    except (ValueError, OSError) as error:
        _fail(str(error), exit_status_of(error))
    except (RuntimeError, MemoryError) as error:
        if exit_status_of(error) != OUT_OF_MEMORY:
            raise
        _fail(f"{(str(error).splitlines() or ['out of memory'])[0]}; take a smaller micro_batch_size", OUT_OF_MEMORY)


def _fail(message: str, status: int = BAD_INPUT) -> None:
    if message:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(message)}")
    sys.exit(status)
