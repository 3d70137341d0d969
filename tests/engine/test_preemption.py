"""A signal sets a flag and nothing else; a time limit leaves time for a step and a save."""

import os
import signal
import time

import pytest

from arvis_scale.engine.preemption import PreemptionFlag, TimeLimit


def test_signal_only_sets_the_flag_and_the_handler_returns_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with PreemptionFlag() as flag:
        assert flag.raised_by is None
        os.kill(os.getpid(), signal.SIGUSR2)
        assert flag.raised_by == "SIGUSR2"
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.raised_by == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("minutes", "slurm_seconds"), [(10.0, None), (None, 600.0), (10.0, 1e6), (1e6, 600.0)], ids=str
)
def test_a_run_is_stopped_early_enough_for_two_slow_steps_and_saves(minutes, slurm_seconds):
    environment = {} if slurm_seconds is None else {"SLURM_JOB_END_TIME": str(int(time.time() + slurm_seconds))}
    limit = TimeLimit(minutes, environment)
    assert not limit.is_near(step_seconds=1.0, save_seconds=60.0)
    assert not limit.is_near(step_seconds=0.0, save_seconds=290.0)
    assert limit.is_near(step_seconds=0.0, save_seconds=300.0)
    assert limit.is_near(step_seconds=250.0, save_seconds=60.0)


def test_without_a_limit_a_run_is_never_stopped():
    assert not TimeLimit(None, {}).is_near(step_seconds=1e9, save_seconds=1e9)
