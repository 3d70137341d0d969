"""Trains CONFIG on processes that wait for each other no longer than some seconds, and lets them meet afterwards.

Run by test_probe_wait.py once per rank. `slow`: the first process takes longer than that for its probe; `killed`: it is
killed in the midst of it.
"""

import os
import signal
import sys
import time
from datetime import timedelta

from arvis_scale.config import load_config
from arvis_scale.engine import distributed, result
from arvis_scale.engine.train import train

LONGEST_WAIT = 8.0

probe_encoder = result.probe_encoder


def probe_slowly(*arguments):
    time.sleep(LONGEST_WAIT + 1)
    return probe_encoder(*arguments)


def die(*arguments):
    print("probing", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    fault, config = sys.argv[1:]
    distributed._CONTROL_TIMEOUT = timedelta(seconds=LONGEST_WAIT)
    result.probe_encoder = {"slow": probe_slowly, "killed": die}[fault]
    train(load_config(config))
    distributed.join_processes().barrier()  # as at the beginning of a job's next run
