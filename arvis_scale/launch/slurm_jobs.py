"""What Slurm knows of jobs, asked once for all: `squeue` for those it holds, `sacct` for those it has let go."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

# A controller that is away makes `squeue` wait for it.
TIMEOUT_SECONDS = 60.0
# Jobs of one command line, whose length the system bounds.
_AT_ONCE = 5000
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_RUNNING = ("RUNNING", "CONFIGURING", "COMPLETING", "STAGE_OUT", "SIGNALING", "SUSPENDED", "STOPPED", "RESIZING")


class SlurmError(OSError):
    """Slurm's commands are not there or do not answer; the message is one line."""


@dataclass(frozen=True)
class JobState:
    """One job, or one task of an array, as Slurm sees it."""

    # PENDING, RUNNING, COMPLETED, FAILED, TIMEOUT, NODE_FAIL, OUT_OF_MEMORY, CANCELLED, PREEMPTED, ... (squeue(1)).
    state: str
    # Its nodes, in Slurm's notation (`node[1-2]`); empty before it has any.
    node: str = ""
    # Why it waits or ended, in Slurm's word; empty where there is none.
    reason: str = ""
    # `STATUS:SIGNAL` of its end, as Slurm writes them; empty before it.
    exit_code: str = ""
    # Times that Slurm started it again.
    restarts: int = 0

    @property
    def is_waiting(self) -> bool:
        """Whether it is to start, as far as Slurm knows."""
        return self.state in _WAITING

    @property
    def is_running(self) -> bool:
        """Whether it has nodes now."""
        return self.state in _RUNNING

    @property
    def is_living(self) -> bool:
        """Whether it runs or is to start."""
        return self.is_waiting or self.is_running


def job_states(job_ids: Iterable[str]) -> dict[str, JobState]:
    """Return the state of every job (`1234`) and task of an array (`1234_5`) that Slurm knows.

    Where Slurm keeps no accounting, jobs that ended longer than `MinJobAge` ago are unknown, and missing. Raises
    `SlurmError` when the controller does not answer: that says nothing of the jobs.
    """
    wanted = set(job_ids)
    arrays = sorted({job_id.partition("_")[0] for job_id in wanted}, key=int)
    states: dict[str, JobState] = {}
    for start in range(0, len(arrays), _AT_ONCE):
        chunk = ",".join(arrays[start : start + _AT_ONCE])
        present = _from_squeue(chunk)
        states.update(_merged(_from_sacct(chunk), present))
    return {job_id: states[job_id] for job_id in wanted if job_id in states}


def _merged(past: dict[str, JobState], present: dict[str, JobState]) -> dict[str, JobState]:
    """Return both; of a job in both the present, with the restarts that only the accounting remembers.

    What the accounting calls living and the controller no longer holds has ended: it hears late of a waiting array's
    cancelled tasks. How they ended is unknown.
    """
    merged = {job_id: state for job_id, state in past.items() if not state.is_living}
    for job_id, state in present.items():
        merged[job_id] = replace(state, restarts=max(past.get(job_id, state).restarts, state.restarts))
    return merged


_SQUEUE_FIELDS = ("JobArrayID:40", "State:24", "RestartCnt:12", "exit_code:16", "Reason:64", "NodeList:400")


def _from_squeue(job_ids: str) -> dict[str, JobState]:
    command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={job_ids}"]
    fields = ",".join(f"{field}|" for field in _SQUEUE_FIELDS)
    finished = _call([*command, f"--Format={fields}"])
    if finished.returncode != 0 and "Invalid job id" not in finished.stderr:
        raise SlurmError(f"squeue: {_last_line(finished.stderr).removeprefix('squeue: ')}")
    states = {}
    for job_id, state, restarts, exit_code, reason, node in _rows(finished.stdout, len(_SQUEUE_FIELDS)):
        found = JobState(state, _named(node), _named(reason), exit_code, int(restarts))
        states[job_id] = replace(found, exit_code="" if found.is_living else _status_and_signal(exit_code))
    return states


def _status_and_signal(wait_status: str) -> str:
    """Return squeue's number, that of wait(2), as sacct writes it."""
    return f"{int(wait_status) >> 8}:{int(wait_status) & 127}" if wait_status.isdigit() else wait_status


_SACCT_FIELDS = ("JobID", "State", "ExitCode", "Reason", "NodeList")


def _from_sacct(job_ids: str) -> dict[str, JobState]:
    """Return what the accounting holds; nothing where there is none."""
    command = ["sacct", "--noheader", "--allocations", "--duplicates", "--parsable2", f"--jobs={job_ids}"]
    # Without a first day sacct leaves out jobs that ended before today, even when they are asked for by number.
    try:
        finished = _call([*command, "--starttime=1970-01-02", f"--format={','.join(_SACCT_FIELDS)}"])
    except SlurmError:  # squeue has answered, so Slurm is there
        return {}
    if finished.returncode != 0:  # slurmdbd is away, or was never there
        return {}
    states: dict[str, JobState] = {}
    for number, state, exit_code, reason, node in _rows(finished.stdout, len(_SACCT_FIELDS)):
        for job_id in _tasks(number):
            # One line per start, in their order: the last one is the job as it is.
            restarts = states[job_id].restarts + 1 if job_id in states else 0
            word = state.split(maxsplit=1)[0]  # "CANCELLED by 1000"
            states[job_id] = JobState(word, _named(node), _named(reason), exit_code, restarts)
    return states


def _call(command: list[str]) -> subprocess.CompletedProcess[str]:
    # Slurm cuts long lists of an array's tasks unless told otherwise.
    environment = {**os.environ, "SLURM_BITSTR_LEN": "0"}
    try:
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS
        )
    except FileNotFoundError as error:
        raise SlurmError(f"{command[0]} is not on the PATH; run this where Slurm's commands are") from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{command[0]} did not answer within {TIMEOUT_SECONDS:.0f} s; try again") from error


def _rows(text: str, num_fields: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) >= num_fields:
            yield fields[:num_fields]


def _tasks(number: str) -> Iterator[str]:
    """Yield the jobs that sacct's number stands for: `7_[0,2-8:2%3]` is an array's tasks that have not begun."""
    listed = re.fullmatch(r"(\d+)_\[([\d,:-]+)(?:%\d+)?\]", number)
    if listed is None:
        yield number
        return
    for part in listed[2].split(","):
        span, _, stride = part.partition(":")
        first, _, last = span.partition("-")
        yield from (f"{listed[1]}_{task}" for task in range(int(first), int(last or first) + 1, int(stride or 1)))


def _named(word: str) -> str:
    """Return Slurm's word, or nothing where it says that there is none."""
    return "" if word in ("None", "(null)", "None assigned", "n/a", "N/A") else word


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no answer"
