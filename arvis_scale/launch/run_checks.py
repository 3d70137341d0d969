"""Every run of a study is checked before one of them starts or anything is written."""

from __future__ import annotations

import logging

from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.executors.token_jobs import check_token_size, token_folder, tokens_to_make, with_teacher
from arvis_scale.launch.studies.expansion import PlannedRun
from arvis_scale.launch.studies.study import Study

_logger = logging.getLogger(__name__)


def check_runs(study: Study) -> None:
    """Raise `ValueError`, naming the run, for the first one that could not be trained.

    A branch whose parent is a run of the study and has not completed is checked against it when it starts. Warns of a
    study that tunes on the test images of its probe.
    """
    # They bring torch.
    from arvis_scale.engine.checks import RunChecks
    from arvis_scale.launch.studies.tuning import tuned_on_test_images

    checks, to_come = RunChecks(), tokens_to_make(study, study.runs)
    for run in study.runs:
        try:
            if run.kind == "raw_pixels":
                checks.check_probe_data(run.config)
            else:
                config = with_teacher(run.config) if token_folder(run.config) in to_come else run.config
                checks.check(config, is_parent_to_come=_is_parent_to_come(run))
        except ValueError as error:
            raise ValueError(f"run {run.config.name}: {error}") from error
    for folder, run in to_come.items():
        check_token_size(study, folder, run)
    caution = tuned_on_test_images(study)
    if caution is not None:
        _logger.warning("%s", caution)


def _is_parent_to_come(run: PlannedRun) -> bool:
    parent = run.config.parent
    return bool(run.after) and parent is not None and RunFolder(parent).status().state != "completed"
