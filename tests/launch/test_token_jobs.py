"""The first job of a study that stores the teacher tokens its runs replay."""

import os
import signal
import threading
import time

import pytest

from arvis_scale.data.build import build_shards
from arvis_scale.engine.exit_status import PREEMPTED
from arvis_scale.launch.executors.token_jobs import tokenize_task, tokens_to_make
from arvis_scale.launch.studies.study import load_study

STUDY = """
schema_version: 1
name: stored
base: digits
set: {samples_seen: 64, preset: pico, teacher.kind: pixels, data.num_workers: 0, micro_batch_size: 16}
axes: {objective: [digpt, xtra], unique_images: [16, 250]}
references: false
launch: {token_views: 400}
"""


@pytest.fixture
def study(tmp_path):
    """A study of which two runs replay tokens/, which nobody has stored yet."""
    build_shards("digits", tmp_path / "digits")
    (tmp_path / "study.yaml").write_text(STUDY)
    given = [f"data.shards={tmp_path / 'digits'}", f"teacher.tokens={tmp_path / 'tokens'}"]
    return load_study(tmp_path / "study.yaml", tmp_path / "out", given)


def test_tokens_are_made_once_for_the_run_with_most_images(study, tmp_path):
    ((folder, run),) = tokens_to_make(study, study.runs).items()
    assert (folder, run.config.objective, run.config.unique_images) == (str(tmp_path / "tokens"), "digpt", 250)


def test_a_job_that_is_told_to_stop_leaves_at_a_batch_and_the_folder_to_the_next(study, tmp_path):
    ((folder, run),) = tokens_to_make(study, study.runs).items()

    def tell():
        deadline = time.monotonic() + 30
        while not (tmp_path / "tokens" / "tokens.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR2)

    threading.Thread(target=tell).start()
    with pytest.raises(SystemExit) as left:
        tokenize_task(study, folder, run)()
    assert left.value.code == PREEMPTED
    assert list(tokens_to_make(study, study.runs)) == [folder]
