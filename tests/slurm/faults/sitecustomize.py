"""Faults of the machine for test_survival.py; Python imports a file of this name on its PYTHONPATH by itself.

FAULTY_NODE: nothing can be trained on that node. SLOW_SAVE: while that file does not exist, the second save of the run
"saving" makes it and then does not come to its end, as on a disk that hangs.
"""

import os
import sys
import time
from pathlib import Path


def broken(*arguments):
    raise RuntimeError("CUDA error: uncorrectable ECC error encountered")


def hanging_at_the_second(publish):
    saves = []

    def hanging(unfinished, final):
        saves.append(final)
        if len(saves) == 2:
            Path(os.environ["SLOW_SAVE"]).touch()
            time.sleep(600)
        publish(unfinished, final)

    return hanging


if "arvis_scale.launch.jobs.worker" in sys.orig_argv:
    if os.environ.get("FAULTY_NODE") == os.environ["SLURMD_NODENAME"]:
        import arvis_scale.config

        arvis_scale.config.load_config = broken
    if any("saving" in word for word in sys.orig_argv) and not Path(os.environ["SLOW_SAVE"]).exists():
        from arvis_scale.engine.checkpointing import files

        files.publish = hanging_at_the_second(files.publish)
