"""Real shards and real processes for the tests of this folder."""

import os
import subprocess
import sys

import pytest

from arvis_scale.data.build import build_shards


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digits"
    build_shards("digits", folder)
    return folder


@pytest.fixture(scope="session")
def environment():
    """One thread per process, and no launcher's variables."""
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def arvis_scale(environment):
    """Run the command line and return the finished process."""

    def run(*arguments, **options):
        command = [sys.executable, "-m", "arvis_scale", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **options)

    return run
