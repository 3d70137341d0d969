"""Two copies of a run never hold its folder, nor write to it, on one machine or several; a dead one's is taken over."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import psutil
import pytest

from arvis_scale.atomic import write_json
from arvis_scale.engine import run_lock
from arvis_scale.engine.run_folder import STALE_AFTER_SECONDS, RunFolder
from arvis_scale.engine.run_lock import exclusive, is_held_by_another_job, is_leased, release_dead


class Alone:
    """What `exclusive` asks of a group of one process, without the seconds that torch takes."""

    is_first = True

    def any(self, flag):
        return flag


alone = Alone()
HOLD = f"""
import sys, time
from arvis_scale.engine import run_lock
from arvis_scale.engine.run_folder import RunFolder
{inspect.getsource(Alone)}
if len(sys.argv) > 2:
    run_lock._RENEWED_EVERY_SECONDS = float(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    with run_lock.exclusive(RunFolder(sys.argv[1]), Alone()) as lease:
        print("held", flush=True)
        sys.stdin.readline()
        lease.confirm()
        print("published", flush=True)
        time.sleep(60)
except ValueError as error:
    print(error, flush=True)
"""


@pytest.fixture
def holders(tmp_path):
    """Return a function that starts processes which all try to hold the folder at the same moment."""
    started = []

    def start(number, *words, **environment):
        command, environment = [sys.executable, "-c", HOLD, str(tmp_path), *words], {**os.environ, **environment}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, env=environment, **pipes) for _ in range(number)]
        started.extend(processes)
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        return processes

    yield start
    for process in started:
        process.kill()
        process.communicate()


def write_lease(folder, number=1, *, age=0.0, **changes):
    """Write a lease as another machine's process would, `age` seconds ago."""
    holder = {"machine": "elsewhere", "pid": os.getpid(), "started": 0.0, "job": "", "restart": 0, **changes}
    lease = {"schema_version": 1, "number": number, "holder": holder, "renewed": time.time() - age}
    folder.lease.mkdir(parents=True, exist_ok=True)
    (folder.lease / f"{number:06d}.json").write_text(json.dumps({**lease, "is_released": False}))


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path, holders):
    (holder,) = holders(1)
    assert holder.stdout.readline() == "held\n"
    folder = RunFolder(tmp_path)
    assert is_leased(folder)
    with pytest.raises(ValueError, match="being trained by another process"), exclusive(folder, alone):
        pass
    holder.kill()
    while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:  # nobody has asked for its status yet
        time.sleep(0.01)
    with exclusive(folder, alone):
        assert is_leased(folder)
    assert not is_leased(folder)


def test_other_machines_need_not_wait_for_a_process_that_its_parent_has_seen_die(tmp_path, monkeypatch, holders):
    (holder,) = holders(1)
    assert holder.stdout.readline() == "held\n"
    folder = RunFolder(tmp_path)
    release_dead(folder)
    with monkeypatch.context() as patched:
        patched.setattr(run_lock, "_machine", lambda: "elsewhere")
        assert is_leased(folder)
        holder.kill()
        holder.communicate()
        release_dead(folder)
        assert is_leased(folder)  # what is not of this machine may live
    release_dead(folder)
    monkeypatch.setattr(run_lock, "_machine", lambda: "elsewhere")
    assert not is_leased(folder)


def test_of_several_that_find_a_dead_lease_one_gets_the_folder(tmp_path, holders):
    write_lease(RunFolder(tmp_path), age=STALE_AFTER_SECONDS + 1)
    said = [process.stdout.readline() for process in holders(4)]
    assert sorted(line == "held\n" for line in said) == [False, False, False, True]


def test_a_holder_elsewhere_that_renews_its_lease_keeps_it(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    write_lease(folder, age=60.0)
    monkeypatch.setattr(time, "sleep", lambda seconds: write_lease(folder))  # it renews while we wait
    with pytest.raises(ValueError, match="being trained by another process"), exclusive(folder, alone):
        pass


def test_a_holder_elsewhere_that_does_not_is_waited_for_until_it_is_stale(tmp_path):
    folder = RunFolder(tmp_path)
    write_lease(folder, age=STALE_AFTER_SECONDS - 1.0)
    began = time.monotonic()
    with exclusive(folder, alone):
        assert time.monotonic() - began > 0.9


def test_a_claim_that_was_never_signed_is_waited_for_too(tmp_path):
    folder = RunFolder(tmp_path)
    folder.lease.mkdir()
    claim = folder.lease / "000007.json"
    claim.touch()
    assert is_leased(folder)
    long_ago = time.time() - STALE_AFTER_SECONDS - 1
    os.utime(claim, (long_ago, long_ago))
    with exclusive(folder, alone):
        assert [path.name for path in folder.lease.iterdir()] == ["000008.json"]


def start_of_job(monkeypatch, restart):
    for name, value in {"ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "1", "JOB_ID": "8", "RESTART_COUNT": restart}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))


@pytest.mark.parametrize(
    ("job", "restart", "is_another"), [("7_1", 1, False), ("7_1", 2, True), ("7_2", 1, True), ("", 0, True)]
)
def test_an_earlier_start_of_the_same_slurm_job_may_live_but_is_not_another_job(
    tmp_path, monkeypatch, job, restart, is_another
):
    start_of_job(monkeypatch, 2)
    folder = RunFolder(tmp_path)
    write_lease(folder, job=job, restart=restart)
    assert is_leased(folder)
    assert is_held_by_another_job(folder) is is_another


def test_of_an_earlier_start_the_folder_is_held_only_when_its_process_must_have_noticed(tmp_path, monkeypatch):
    start_of_job(monkeypatch, 2)
    folder = RunFolder(tmp_path)
    write_lease(folder, age=STALE_AFTER_SECONDS - 1.5, job="7_1", restart=1)
    began = time.monotonic()
    with exclusive(folder, alone):
        assert 1.0 < time.monotonic() - began < 10.0
        assert [path.name for path in folder.lease.iterdir()] == ["000002.json"]


def test_a_living_process_of_an_earlier_start_is_told_to_end(tmp_path, monkeypatch, holders):
    """As when Slurm has given up a node whose processes go on."""
    monkeypatch.setattr(run_lock, "_machine", lambda: "elsewhere")
    start_of_job(monkeypatch, 1)
    (holder,) = holders(1, "0.1")
    assert holder.stdout.readline() == "held\n"
    start_of_job(monkeypatch, 2)
    monkeypatch.setattr(run_lock, "STALE_AFTER_SECONDS", 3.0)
    with exclusive(RunFolder(tmp_path), alone):
        assert holder.poll() == 1


def test_a_process_number_that_was_given_to_another_process_holds_nothing(tmp_path):
    folder = RunFolder(tmp_path)
    write_lease(folder, machine=run_lock._machine(), started=1.0)  # this test's own number, which began later
    assert not is_leased(folder)


def take_over(folder, holder):
    """Take the folder from a process that stands still, as one that finds its lease stale does; then it goes on."""
    holder.send_signal(signal.SIGSTOP)
    lease = json.loads((folder.lease / "000001.json").read_text())
    (folder.lease / "000001.json").write_text(json.dumps({**lease, "renewed": 0.0}))
    stack = ExitStack()
    stack.enter_context(exclusive(folder, alone))
    holder.send_signal(signal.SIGCONT)
    return stack


def test_a_holder_that_was_taken_for_dead_ends_when_it_renews(tmp_path, holders):
    (holder,) = holders(1, "0.1")
    assert holder.stdout.readline() == "held\n"
    folder = RunFolder(tmp_path)
    with take_over(folder, holder):
        assert holder.wait(10) == 1
        assert [path.name for path in folder.lease.iterdir()] == ["000002.json"]


def test_a_holder_that_was_taken_for_dead_publishes_nothing_before_it_would_renew(tmp_path, holders):
    (holder,) = holders(1)
    assert holder.stdout.readline() == "held\n"
    with take_over(RunFolder(tmp_path), holder):
        said, _ = holder.communicate("\n", timeout=10)
        assert (holder.returncode, said) == (1, "")


def test_a_holder_that_nobody_disturbs_goes_on(tmp_path, holders):
    (holder,) = holders(1)
    assert holder.stdout.readline() == "held\n"
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "published\n"


def test_a_claim_that_a_faster_one_removes_is_no_error(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    written = []

    def overtaken(path, value):
        write_json(path, value)
        written.append(path.name)
        if len(written) == 1:
            write_lease(folder, 5, age=STALE_AFTER_SECONDS + 1)
            path.unlink()

    monkeypatch.setattr(run_lock, "write_json", overtaken)
    with exclusive(folder, alone):
        assert [path.name for path in folder.lease.iterdir()] == ["000006.json"]
