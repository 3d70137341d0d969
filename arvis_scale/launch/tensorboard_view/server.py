"""Serves the view of a sweep on this machine's own address, and keeps it up meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

from arvis_scale.launch.tensorboard_view.sweep_view import SweepView

REFRESH_SECONDS = 30.0


def start_server(folder: Path, port: int) -> str:
    """Start TensorBoard on `folder` in this process and return its address.

    `port` 0 takes a free one. Raises `ValueError` when the port is taken.
    """
    from tensorboard import default, program
    from tensorboard.program import TensorBoardServerException

    board = program.TensorBoard(default.get_plugins())
    board.configure(
        logdir=str(folder), host="127.0.0.1", port=port, reload_interval=REFRESH_SECONDS / 2, window_title=folder.name
    )
    try:
        address: str = board.launch()
    except TensorBoardServerException as error:
        raise ValueError(f"--port {port}: {' '.join(str(error).split())}; choose another, or 0 for any") from error
    return address


def keep_up(view: SweepView) -> None:
    """Update the view again and again, until the process ends."""
    while True:
        time.sleep(REFRESH_SECONDS)
        view.update()
