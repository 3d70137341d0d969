"""Locks on files: one process has it, on whatever disk, and it is known which."""

import errno
import fcntl
import os
import socket
import subprocess
import sys

import pytest

from arvis_scale.launch.locks import Holder, held, holder, is_held
from arvis_scale.launch.submit import LOCK_NAME, stop_submission

HOLD = """
import sys
from pathlib import Path
from arvis_scale.launch.locks import held
with held(Path(sys.argv[1])) as is_mine:
    print(is_mine, flush=True)
    input()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "lock"


@pytest.fixture
def other(path):
    """Another process, which holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_is_its_process_s_until_that_ends(path, other):
    assert is_held(path)
    assert holder(path) == Holder(socket.gethostname(), other.pid)
    with held(path) as is_mine:
        assert not is_mine
    other.communicate("\n")
    assert not is_held(path) and holder(path) is None
    with held(path) as is_mine:
        assert is_mine and holder(path) == Holder(socket.gethostname(), os.getpid())


def test_whoever_looks_does_not_keep_others_from_the_lock(path):
    with held(path):
        pass
    looks = "import fcntl, sys, time\nfile = open(sys.argv[1])\nfcntl.flock(file, fcntl.LOCK_SH)\nprint(flush=True)\n"
    with subprocess.Popen([sys.executable, "-c", looks + "time.sleep(0.3)", path], stdout=subprocess.PIPE) as looking:
        looking.stdout.readline()
        with held(path) as is_mine:
            assert is_mine


def test_nfs_wants_a_file_open_for_writing_for_an_exclusive_lock(path, monkeypatch):
    flock = fcntl.flock

    def as_on_nfs(file, kind):
        if kind & fcntl.LOCK_EX and not file.writable():
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, kind)

    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    with held(path) as is_mine:
        assert is_mine and is_held(path)
    assert not is_held(path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_on_a_disk_without_locks_nobody_is_kept_out(path, monkeypatch, number):
    def refuse(file, kind):
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with held(path) as is_mine:
        assert is_mine and not is_held(path) and holder(path) is None


def test_a_submission_of_another_machine_is_not_signalled(tmp_path):
    with held(tmp_path / LOCK_NAME):
        (tmp_path / LOCK_NAME).write_text(f"login2 {os.getpid()}")
        with pytest.raises(ValueError, match=f"process {os.getpid()} of login2 is submitting this study; stop it"):
            stop_submission(tmp_path)
