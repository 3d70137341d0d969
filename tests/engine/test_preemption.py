"""A signal sets a flag and nothing else."""

import os
import signal

from arvis_scale.engine.preemption import PreemptionFlag


def test_signal_only_sets_the_flag_and_the_handler_returns_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with PreemptionFlag() as flag:
        assert flag.raised_by is None
        os.kill(os.getpid(), signal.SIGUSR2)
        assert flag.raised_by == "SIGUSR2"
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.raised_by == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before
