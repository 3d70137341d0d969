"""A real Slurm of four nodes on this machine, brought up once for the tests of this folder."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from arvis_scale.data.build import build_shards

SCRIPT = Path(__file__).parents[2] / "slurm" / "testcluster" / "cluster.sh"


class Cluster:
    """A cluster that is up: what a command needs to reach it, and what can be done to it."""

    def __init__(self, folder, environment):
        self.folder = folder
        self.environment = {**environment, "SLURM_CONF": str(folder / "slurm.conf")}

    def do(self, verb, *arguments):
        """Call cluster.sh: crash_node, start_node, stop_controller, start_controller."""
        command = [str(SCRIPT), verb, str(self.folder), *arguments]
        subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True)

    def slurm(self, *command):
        """Return what a command of Slurm prints."""
        command = list(map(str, command))
        done = subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True)
        return done.stdout

    def arvis_scale(self, *arguments, **options):
        """Run the command line and return the finished process."""
        command = ["arvis-scale", *map(str, arguments)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, **options)

    def jobs(self, *fields):
        """Return a list of squeue's `fields` (its long names) for every job and task of an array that it holds."""
        lines = self.slurm(
            "squeue", "--array", "--noheader", "--Format=" + ",".join(f"{field}:200" for field in fields)
        )
        return [line.split() for line in lines.splitlines()]

    def wait_until(self, condition, seconds=180):
        """Wait until `condition()` is true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.slurm("squeue", "--array")
            time.sleep(0.5)

    def wait_for_no_jobs(self, seconds=180):
        """Wait until no job waits or runs."""
        self.wait_until(lambda: not self.jobs("JobID"), seconds)


def bring_up(*options):
    """Yield a cluster; skip, with the script's sentence, where there is none and none may be installed."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SUBMITIT_"))}
    launched = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    environment = {key: value for key, value in kept.items() if key not in launched}
    environment["OMP_NUM_THREADS"] = "1"
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    environment["CLUSTER_PORT"] = str(random.SystemRandom().randrange(15_000, 19_000, 20))
    # Short, and without the characters that Slurm's own files do not take; that is for the studies.
    folder = Path(tempfile.mkdtemp(prefix="arvis-slurm-"))
    cluster = Cluster(folder, environment)
    try:
        up = subprocess.run(
            [str(SCRIPT), "up", str(folder), *options], env=environment, capture_output=True, text=True, check=False
        )
        if up.returncode != 0 and os.environ.get("ARVIS_INSTALL_SLURM") != "1":
            pytest.skip(up.stderr.strip() or "no Slurm here")
        assert up.returncode == 0, up.stderr
        yield cluster
    finally:
        subprocess.run([str(SCRIPT), "down", str(folder)], env=cluster.environment, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster():
    """A cluster with accounting (slurmdbd), where jobs that ended long ago are known."""
    yield from bring_up("accounting")


@pytest.fixture(scope="module")
def cluster_without_accounting():
    """A cluster that forgets jobs some time after their end."""
    yield from bring_up()


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Shards of scikit-learn's digits."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    build_shards("digits", folder)
    return folder
