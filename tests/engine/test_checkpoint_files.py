"""A checkpoint is trusted only when every file matches its manifest."""

import pytest

from arvis_scale.engine.checkpoint_files import find_damage, newest_checkpoint, write_manifest


@pytest.fixture
def checkpoints(tmp_path):
    for step in (10, 20):
        folder = tmp_path / f"step_{step:08d}"
        (folder / "state").mkdir(parents=True)
        (folder / "state" / "model.pt").write_bytes(b"weights %d" % step)
        write_manifest(folder, step=step, world_size=1)
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


def test_no_folder_is_no_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path / "none") is None
