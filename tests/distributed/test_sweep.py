"""A sweep through submitit's local executor: failures are kept apart, and only what is missing is started again."""

import json

import pytest

from arvis_scale.engine.run_folder import RunFolder

pytestmark = pytest.mark.processes

STUDY = """
schema_version: 1
name: sweep
base: digits
set: {samples_seen: 64, preset: nano, data.validation_images: 20}
axes:
  objective: [xtra, aim]
  unique_images: [10]
references: false
launch: {max_parallel: 2, runs_per_job: 2}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory, digits, arvis_scale):
    """A study whose second run fails at first: something that is not a folder is where its checkpoints belong."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "sweep.yaml").write_text(STUDY)
    broken = folder / "out" / "runs" / "aim-nano-u10-n64-s0" / "tensorboard"
    broken.parent.mkdir(parents=True)
    broken.write_text("a file where a folder belongs")

    def submit():
        return arvis_scale(
            "sweep", "submit", folder / "sweep.yaml", f"data.shards={digits}", f"probe_data.shards={digits}",
            "--output", folder / "out",
        )  # fmt: skip

    first = submit()
    first_status = {path.name: RunFolder(path).status() for path in (folder / "out" / "runs").iterdir()}
    broken.unlink()
    second = submit()
    return folder / "out", first, first_status, second


def test_a_failing_run_is_named_and_the_others_go_on(study):
    _, first, status, _ = study
    assert first.returncode == 1
    assert "1 of 2 runs completed" in first.stdout
    assert status["xtra-nano-u10-n64-s0"].state == "completed"
    assert status["aim-nano-u10-n64-s0"].state == "failed"
    assert "FileExistsError" in status["aim-nano-u10-n64-s0"].reason
    assert "FileExistsError" in first.stdout


def test_submitting_again_starts_only_what_is_missing(study):
    folder, _, _, second = study
    assert second.returncode == 0
    attempts = {path.name: RunFolder(path).status().attempt for path in (folder / "runs").iterdir()}
    assert attempts == {"xtra-nano-u10-n64-s0": 1, "aim-nano-u10-n64-s0": 2}


def test_sweep_json_names_every_run_with_its_job_and_the_commands(study):
    folder, *_ = study
    sweep = json.loads((folder / "sweep.json").read_text())
    assert [run["name"] for run in sweep["runs"]] == ["xtra-nano-u10-n64-s0", "aim-nano-u10-n64-s0"]
    for run in sweep["runs"]:
        assert list((folder / "logs").glob(f"{run['job_id']}_0_log.out"))
        assert run["config"]["samples_seen"] == 64
    assert sweep["commands"][0].startswith("arvis-scale sweep submit")


def test_status_shows_every_run(study, arvis_scale):
    shown = arvis_scale("sweep", "status", study[0])
    assert shown.returncode == 0
    assert shown.stdout.count("completed") == 2
