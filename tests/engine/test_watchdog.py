"""A process without progress ends with its stacks on disk, and the one that is behind is named."""

import subprocess
import sys

from arvis_scale.engine.exit_status import HANGING
from arvis_scale.engine.guarding.watchdog import Report, name_the_last
from arvis_scale.engine.run_folder import RunFolder, Status

# What one process of a run does, without the run: FOLDER, RANK, and what it does in the end.
PROCESS = """
import sys, threading, time
from arvis_scale.engine.run_folder import RunFolder, Status
from arvis_scale.engine.guarding.watchdog import Watchdog

def read_a_disk_that_does_not_answer():
    time.sleep(1000)

folder, rank, end = RunFolder(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
status = Status("running", attempt=2, step=5)
with Watchdog(folder, status, rank=rank, world_size=2, minutes=0.02) as watchdog:
    for step in (5, 6, 7):
        time.sleep(0.5)
        watchdog.progress(step, "data")
        if step == 7 and end == "hangs":
            while not (folder.path / "waiting").exists():
                watchdog.progress(step, "data")
                time.sleep(0.05)
            read_a_disk_that_does_not_answer()
        watchdog.progress(step, "compute")
    for _ in watchdog.over(range(4), 8, "validation"):
        time.sleep(0.5)
        if end == "waits":
            (folder.path / "waiting").touch()
            threading.Event().wait()
"""


def run_processes(folder, *ends):
    commands = [[sys.executable, "-c", PROCESS, str(folder), str(rank), end] for rank, end in enumerate(ends)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    return [process.returncode for process in processes], errors


def test_processes_that_make_progress_are_left_alone_for_longer_than_the_time_out(tmp_path):
    assert run_processes(tmp_path, "goes on", "goes on") == ([0, 0], ["", ""])
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_hangs_ends_all_with_its_stack_on_disk_and_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_status(Status("running", attempt=2))
    codes, errors = run_processes(tmp_path, "waits", "hangs")
    assert codes == [HANGING, HANGING]
    stacks = (folder.watchdog / "attempt_0002" / "rank_00001.txt").read_text()
    assert stacks.startswith("rank 1 step 7 part ")
    assert "read_a_disk_that_does_not_answer" in stacks
    assert "rank 0 step 8" in (folder.watchdog / "attempt_0002" / "rank_00000.txt").read_text()
    status = folder.status()
    assert (status.state, status.exit_status) == ("failed", HANGING)
    assert status.reason.startswith("no progress for 0.02 minutes; rank 1 on ")
    assert "is behind, at step 7 (data); stacks in " in status.reason
    assert status.reason in errors[0]
    assert errors[1] == ""


def report(rank, step, phase="compute", part=2, host="a"):
    return Report(rank, step, part, phase, host)


def test_the_process_that_the_others_wait_for_is_named():
    assert name_the_last([report(0, 7), None, report(2, 7)]) == "rank 1 did not answer: stopped or dead"
    assert name_the_last([report(0, 7), report(1, 6, host="b")]) == "rank 1 on b is behind, at step 6 (compute)"
    assert name_the_last([report(0, 7, part=4), report(1, 7)]) == "rank 1 on a is behind, at step 7 (compute)"
    # Who waits for data waits for no other process, whatever it has done before.
    assert name_the_last([report(0, 7, "data", 9), report(1, 7)]) == "rank 0 on a is behind, at step 7 (data)"
    assert name_the_last([report(0, 7), report(1, 7)]) == "all 2 processes are at step 7 (compute)"
