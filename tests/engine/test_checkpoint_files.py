"""A checkpoint is trusted only when every file matches its manifest."""

import pytest

from arvis_scale.engine.checkpoint_files import (
    check_checkpoints,
    find_damage,
    newest_checkpoint,
    prune_checkpoints,
    write_manifest,
)


@pytest.fixture
def checkpoints(tmp_path):
    for step in (10, 20):
        folder = tmp_path / f"step_{step:08d}"
        (folder / "state").mkdir(parents=True)
        (folder / "state" / "model.pt").write_bytes(b"weights %d" % step)
        write_manifest(folder, step=step, world_size=1, strategy="zero1")
    return tmp_path


def test_newest_is_chosen(checkpoints):
    assert newest_checkpoint(checkpoints).name == "step_00000020"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.write_bytes(b"weights 2X"), "content of state/model.pt has changed"),
        (lambda file: file.write_bytes(b"weig"), "4 bytes"),
        (lambda file: file.unlink(), "state/model.pt is missing"),
        (lambda file: (file.parent.parent / "manifest.json").unlink(), "manifest.json is missing"),
    ],
)
def test_damaged_checkpoint_is_named_and_the_one_before_it_taken(checkpoints, damage, said):
    damage(checkpoints / "step_00000020" / "state" / "model.pt")
    assert said in find_damage(checkpoints / "step_00000020")
    with pytest.warns(UserWarning, match="step_00000020 is damaged"):
        assert newest_checkpoint(checkpoints).name == "step_00000010"


def test_a_crash_while_writing_leaves_nothing_to_load(checkpoints):
    (checkpoints / "step_00000020").rename(checkpoints / ".step_00000020.tmp")
    assert newest_checkpoint(checkpoints).name == "step_00000010"


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is not a checkpoint folder \(it holds photo.jpg\)"):
        newest_checkpoint(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(ValueError, match="but a file"):
        newest_checkpoint(tmp_path / "checkpoints")


def test_pruning_beside_a_damaged_later_checkpoint_keeps_the_one_just_written(checkpoints):
    """A run that fell back to step 10 writes it again; step 20, found damaged, must not crowd it out."""
    prune_checkpoints(checkpoints, step=10, keep=1)
    assert [path.name for path in checkpoints.iterdir()] == ["step_00000010"]


def test_pruning_keeps_the_newest(checkpoints):
    prune_checkpoints(checkpoints, step=20, keep=1)
    assert [path.name for path in checkpoints.iterdir()] == ["step_00000020"]


def test_going_on_with_what_cannot_read_the_checkpoint_is_refused_before_it_starts(checkpoints):
    assert check_checkpoints(checkpoints, world_size=1, strategy="zero1")
    with pytest.raises(ValueError, match=r"parallel.processes=1, this run has 2; go on with parallel.processes=1"):
        check_checkpoints(checkpoints, world_size=2, strategy="zero1")
    with pytest.raises(ValueError, match=r"go on with parallel.strategy=zero1"):
        check_checkpoints(checkpoints, world_size=1, strategy="zero3")


def test_no_folder_is_no_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path / "none") is None
