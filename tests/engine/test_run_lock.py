"""Two processes never train into one folder."""

import subprocess
import sys

import pytest

from arvis_scale.engine.distributed import join_processes, leave_processes
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.engine.run_lock import exclusive

HOLD = """
import fcntl, sys, time
lock = open(sys.argv[1], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def alone():
    yield join_processes()
    leave_processes()


def test_second_process_is_refused_until_the_first_is_gone(tmp_path, alone):
    folder = RunFolder(tmp_path)
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / ".lock")], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="being trained by another process"), exclusive(folder, alone):
            pass
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    with exclusive(folder, alone):
        pass
