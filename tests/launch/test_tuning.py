"""A study that tunes on the images that its probe is scored on is told so."""

import logging

import pytest

from arvis_scale.data.build import build_shards
from arvis_scale.launch.run_checks import check_runs
from arvis_scale.launch.studies.study import load_study

STUDY = """
schema_version: 1
name: tuned
base: digits
set: {objective: xtra, samples_seen: 64, preset: pico, data.shards: SHARDS, probe_data.shards: SHARDS}
axes: {unique_images: [16, 250]}
tune: {optimizer.learning_rate: [1.0e-3, 3.0e-3]}
references: false
"""
UNTUNED = "\n".join(line for line in STUDY.splitlines() if not line.startswith("tune"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Shards with a train and a test split."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    build_shards("digits", folder)
    return folder


@pytest.fixture
def warnings_of(tmp_path, shards, caplog):
    """Return a function: the warnings of the checks of a study with these overrides."""

    def check(text, *overrides):
        (tmp_path / "tuned.yaml").write_text(text.replace("SHARDS", str(shards)))
        with caplog.at_level(logging.WARNING):
            check_runs(load_study(tmp_path / "tuned.yaml", tmp_path / "out", overrides))
        return [record.getMessage() for record in caplog.records]

    return check


@pytest.mark.parametrize("overrides", [[], ["data.validation_split=test"], ["data.validation_images=20"]])
def test_tuning_by_the_loss_on_the_probes_test_images_is_warned_of_in_one_line(warnings_of, shards, overrides):
    (line,) = warnings_of(STUDY, *overrides)
    assert f"split 'test' of {shards}, and the probe is scored on the same images" in line
    assert "data.validation_split=held_out" in line and "\n" not in line


def test_shards_that_were_moved_are_the_same_images(warnings_of, shards, tmp_path):
    (tmp_path / "moved").symlink_to(shards)
    assert len(warnings_of(STUDY, f"data.shards={tmp_path / 'moved'}")) == 1


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (STUDY, ["data.validation_split=held_out"]),
        (STUDY, ["probe_data.shards=null"]),
        (STUDY, ["probe_data.test_split=train"]),
        (UNTUNED, []),
    ],
)
def test_other_studies_are_not_warned_of(warnings_of, text, overrides):
    assert warnings_of(text, *overrides) == []
