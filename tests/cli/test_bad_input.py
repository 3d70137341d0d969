"""Bad input ends with one line that says what to do, status 2, and nothing launched or written."""

import sys

import pytest

from arvis_scale import cli
from arvis_scale.data.build import build_shards


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digits"
    build_shards("digits", folder)
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; return its status and what it wrote to standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["arvis-scale", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().err

    return call


def refused(outcome, said):
    status, error = outcome
    assert status == 2
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


def test_missing_folder(run, tmp_path):
    refused(run("shards", "build", tmp_path / "nowhere", tmp_path / "out"), "nowhere")
    assert not (tmp_path / "out").exists()


def test_empty_folder(run, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(run("shards", "build", tmp_path / "empty", tmp_path / "out"), "empty")
    assert not (tmp_path / "out").exists()


def test_no_readable_image(run, tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "a.jpg").write_bytes(b"not an image")
    refused(run("shards", "build", tmp_path / "photos", tmp_path / "out"), "no readable image")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("optimizer.learning_rat=1", "did you mean 'learning_rate'?"),
        ("micro_batch_size=48", "global_batch_size=64 is not a multiple of micro_batch_size=48"),
        ("parallel.processes=3", "x parallel.processes=3"),
        ("unique_images=1001", "1,001"),
        ("preset=huge", "'huge'"),
        ("xtra.block_side=3", "block_side=3"),
        ("patch_size=5", "patch_size=5"),
        ("data.train_split=training", "no split 'training'"),
        ("data.shards=elsewhere", "elsewhere"),
        ("probe_data.shards=elsewhere", "elsewhere"),
        ("parallel.deepspeed.train_batch_size=3", "parallel.deepspeed.train_batch_size is derived"),
        ("objective=digpt teacher.checkpoint=nowhere", "nowhere"),
    ],
)
def test_run_that_cannot_be_trained(run, tmp_path, digits, change, said):
    given = ["objective=xtra", "name=a", f"output={tmp_path / 'run'}", f"data.shards={digits}"]
    refused(run("train", "digits", *given, *change.split()), said)
    assert not (tmp_path / "run").exists()


def test_checkpoint_folder_that_is_not_one(run, tmp_path, digits):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "holiday.jpg").write_bytes(b"")
    given = ["objective=xtra", "name=a", f"output={tmp_path / 'run'}", f"data.shards={digits}"]
    refused(run("train", "digits", *given), "is not a checkpoint folder (it holds holiday.jpg)")
    assert [path.name for path in (tmp_path / "run").rglob("*")] == ["checkpoints", "holiday.jpg"]


def test_study_with_one_bad_run_starts_none(run, tmp_path, digits):
    (tmp_path / "s.yaml").write_text(
        "{schema_version: 1, name: s, base: digits, axes: {objective: [xtra], unique_images: [10, 2000]}}"
    )
    outcome = run("sweep", "submit", tmp_path / "s.yaml", f"data.shards={digits}", "--output", tmp_path / "out")
    refused(outcome, "2,000")
    assert not (tmp_path / "out").exists()


def test_missing_study_file(run, tmp_path):
    refused(run("sweep", "submit", tmp_path / "nope.yaml"), "nope.yaml does not exist")


def test_output_that_cannot_be_a_folder(run, tmp_path, digits):
    (tmp_path / "file").write_text("")
    given = ["objective=xtra", "name=a", f"output={tmp_path / 'file' / 'run'}", f"data.shards={digits}"]
    refused(run("train", "digits", *given), "file")


@pytest.mark.parametrize("verb", [("sweep", "status"), ("study", "collect"), ("probe",)])
def test_folder_that_is_something_else(run, tmp_path, verb):
    refused(run(*verb, tmp_path), str(tmp_path))


def test_missing_training_packages_are_named_with_the_command(run, monkeypatch, tmp_path, digits):
    monkeypatch.setitem(sys.modules, "arvis_scale.engine.train", None)
    for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "arvis_scale.engine.train")
    given = ["objective=xtra", "name=a", f"output={tmp_path / 'run'}", f"data.shards={digits}"]
    refused(run("train", "digits", *given), "pip install 'arvis-scale[train]'")
