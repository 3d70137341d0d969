"""A checkpoint is trusted only when every file matches its manifest."""

import dataclasses

import pytest

from arvis_scale.config import build_config
from arvis_scale.engine.checkpointing.files import (
    check_checkpoints,
    disk_use,
    find_damage,
    newest_checkpoint,
    publish,
    remove_unfinished,
    unfinished_path,
)
from arvis_scale.engine.checkpointing.manifest import Layout, Manifest, describe, read_manifest, write_manifest

FILES = ("state/mp_rank_00_model_states.pt", "state/zero_pp_rank_0_mp_rank_00_optim_states.pt", "random_00000.pt")


def run(**changes):
    values = {"name": "run", "output": "-", "data.shards": "-", "objective": "xtra", "samples_seen": 100}
    return build_config({}, {**values, **changes}, "test")


def write_checkpoint(folder, step, *, has_optimizer_state=True, **changes):
    checkpoint = folder / f"step_{step:08d}"
    for name in FILES:
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / name).write_bytes(f"{name} after {step} steps".encode())
    files = {name: describe(checkpoint / name) for name in FILES}
    write_manifest(checkpoint, Manifest(step, Layout.of(run(**changes)), has_optimizer_state, files))
    return checkpoint


@pytest.fixture
def checkpoints(tmp_path):
    for step in (10, 20):
        write_checkpoint(tmp_path, step)
    return tmp_path


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def test_newest_is_chosen(checkpoints):
    assert newest_checkpoint(checkpoints).name == "step_00000020"


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("damage", [flip_a_bit, truncate, lambda path: path.unlink()])
def test_any_damage_is_named_and_the_checkpoint_before_taken(checkpoints, name, damage):
    damage(checkpoints / "step_00000020" / name)
    assert name in find_damage(checkpoints / "step_00000020")
    with pytest.warns(UserWarning, match=f"step_00000020 is damaged .*{name}"):
        assert newest_checkpoint(checkpoints).name == "step_00000010"
    assert check_checkpoints(checkpoints, run())


def test_every_byte_of_the_manifest_counts(checkpoints):
    checkpoint = checkpoints / "step_00000020"
    content = (checkpoint / "manifest.json").read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        (checkpoint / "manifest.json").write_bytes(changed)
        with pytest.raises(ValueError):
            read_manifest(checkpoint)


def test_when_all_are_damaged_there_is_none(checkpoints):
    for path in checkpoints.glob("step_*/random_00000.pt"):
        path.unlink()
    with pytest.warns(UserWarning, match="is damaged"):
        assert newest_checkpoint(checkpoints) is None


def test_a_crash_while_writing_leaves_nothing_to_load_and_is_tidied_up(checkpoints):
    (checkpoints / "step_00000020").rename(unfinished_path(checkpoints, 20, "unfinished"))
    assert newest_checkpoint(checkpoints).name == "step_00000010"
    remove_unfinished(checkpoints)
    assert [path.name for path in checkpoints.iterdir()] == ["step_00000010"]


def test_a_finished_checkpoint_takes_the_place_of_a_damaged_one(checkpoints):
    unfinished = unfinished_path(checkpoints, 20, "unfinished")
    (checkpoints / "step_00000020").rename(unfinished)
    damaged = write_checkpoint(checkpoints, 20)
    truncate(damaged / FILES[0])
    publish(unfinished, damaged)
    assert find_damage(damaged) is None


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is not a checkpoint folder \(it holds photo.jpg\)"):
        newest_checkpoint(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(ValueError, match="but a file"):
        newest_checkpoint(tmp_path / "checkpoints")


def test_no_folder_is_no_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path / "none") is None
    assert not check_checkpoints(tmp_path / "none", run())


def test_weights_alone_are_passed_over_and_never_called_damaged(checkpoints, recwarn):
    write_checkpoint(checkpoints, 30, has_optimizer_state=False)
    assert newest_checkpoint(checkpoints).name == "step_00000020"
    assert check_checkpoints(checkpoints, run())
    assert not recwarn.list


def test_a_run_that_has_weights_alone_is_refused(tmp_path):
    write_checkpoint(tmp_path, 30, has_optimizer_state=False)
    for refused in (lambda: newest_checkpoint(tmp_path), lambda: check_checkpoints(tmp_path, run())):
        with pytest.raises(ValueError, match=r"step_00000030 holds weights alone, .* no run can go on from it; remove"):
            refused()


ZERO3 = {"parallel.strategy": "zero3"}
TWO = {"parallel.processes": 2, "micro_batch_size": 128}
FOUR = {"parallel.processes": 4, "micro_batch_size": 64}
STAGES = {"parallel.strategy": "pipeline", "parallel.stages": 2}


@pytest.mark.parametrize("changes", [TWO, FOUR, ZERO3 | TWO, {"parallel.strategy": "zero0"} | TWO])
def test_another_number_of_processes_is_welcome(tmp_path, changes):
    strategy = {key: value for key, value in changes.items() if key == "parallel.strategy"}
    write_checkpoint(tmp_path, 10, **strategy)
    assert check_checkpoints(tmp_path, run(**changes))


@pytest.mark.parametrize(
    ("written", "wanted", "said"),
    [
        ({}, ZERO3, "written with parallel.strategy=zero1 parallel.processes=1, and parallel.strategy=zero3 cannot"),
        (STAGES | TWO, STAGES | FOUR, "DeepSpeed cannot cut a pipeline anew; go on with .* parallel.stages=2"),
        (STAGES | FOUR, {**STAGES, "parallel.stages": 4} | FOUR, "DeepSpeed cannot cut a pipeline anew"),
        ({}, {"optimizer.name": "muon", "optimizer.clip_grad_norm": float("inf")} | TWO, "optimizer.name=muon anew"),
    ],
)
def test_what_deepspeed_cannot_spread_anew_is_refused_before_it_starts(tmp_path, written, wanted, said):
    write_checkpoint(tmp_path, 10, **written)
    with pytest.raises(ValueError, match=said):
        check_checkpoints(tmp_path, run(**wanted))


def test_disk_use_is_what_lies_on_disk(checkpoints):
    sizes = disk_use(checkpoints)
    assert list(sizes) == ["step_00000020", "step_00000010"]
    manifest = read_manifest(checkpoints / "step_00000020")
    listed = sum(entry.num_bytes for entry in manifest.files.values())
    assert sizes["step_00000020"] == listed + (checkpoints / "step_00000020" / "manifest.json").stat().st_size


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    checkpoint = write_checkpoint(tmp_path, 10, **ZERO3, **TWO)
    manifest = read_manifest(checkpoint)
    assert manifest.layout == Layout("zero3", 2, 1) and manifest.has_optimizer_state
    write_manifest(checkpoint, dataclasses.replace(manifest, step=11))
    assert read_manifest(checkpoint) == dataclasses.replace(manifest, step=11)
