"""Saves behind the train loop's back: what is written is what was there, and what goes wrong is heard of."""

import time
from pathlib import Path

import pytest
import torch

from arvis_scale.config import CheckpointConfig, build_config
from arvis_scale.engine.checkpointing.checkpoints import Checkpoints
from arvis_scale.engine.checkpointing.files import disk_use, find_damage
from arvis_scale.engine.checkpointing.manifest import read_manifest
from arvis_scale.engine.checkpointing.pruning import prune_finished_run
from arvis_scale.engine.distributed import Processes


class Engine:
    """What DeepSpeed's engine does with its writer under ZeRO-1: one file of the model, one of the optimizer."""

    def __init__(self):
        self.weight = torch.zeros(1000)
        self.moment = torch.zeros(1000)
        self.checkpoint_engine = None

    def save_checkpoint(self, folder, tag, client_state, save_latest):
        assert not save_latest
        state = Path(folder) / tag
        self.checkpoint_engine.makedirs(str(state))
        module = {"weight": self.weight[:10]}
        if self.checkpoint_engine.preserves_storage_sharing():  # as for the layers of a pipeline
            module = {"weight": self.weight[:10].clone()}
        self.checkpoint_engine.save({"module": module, **client_state}, str(state / "mp_rank_00_model_states.pt"))
        optimizer = {"single_partition_of_fp32_groups": [self.weight], "base_optimizer_state": {"exp_avg": self.moment}}
        self.checkpoint_engine.save(
            {"optimizer_state_dict": optimizer}, str(state / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
        )

    def load_checkpoint(self, folder, tag):
        states = Path(folder) / tag
        model = torch.load(states / "mp_rank_00_model_states.pt", weights_only=True)
        self.weight[:10] = model.pop("module")["weight"]
        optimizer = torch.load(states / "zero_pp_rank_0_mp_rank_00_optim_states.pt", weights_only=True)
        self.moment[:] = optimizer["optimizer_state_dict"]["base_optimizer_state"]["exp_avg"]
        return str(states), model


@pytest.fixture(params=["background", "synchronous"])
def start(request, tmp_path):
    """Return a function that gives the checkpoints of a run of one process, with changes of `checkpoints`."""

    def start(confirm_lease=lambda: None, **changes):
        values = {"name": "run", "output": "-", "data.shards": "-", "objective": "xtra", "samples_seen": 100}
        keys = {f"checkpoints.{key}": value for key, value in changes.items()}
        keys["checkpoints.background"] = request.param == "background"
        config = build_config({}, {**values, "checkpoints.every": 0, **keys}, "test")
        alone = Processes(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"), control=None)
        return Checkpoints(tmp_path / "checkpoints", alone, config, confirm_lease)

    return start


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").glob("step_*"))


def test_a_checkpoint_holds_the_moment_of_its_save(start, tmp_path):
    engine = Engine()
    with start() as checkpoints:
        for step in (1, 2):
            engine.weight[:], engine.moment[:] = step, 10 * step
            checkpoints.save(engine, {"step": step, "train_seconds": 1.5})
            drawn = torch.rand(3)
            engine.weight[:], engine.moment[:] = -1.0, -1.0
    assert find_damage(tmp_path / "checkpoints" / "step_00000001") is None
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step_00000002\n"
    again = Engine()
    with start() as checkpoints:
        assert checkpoints.load(again) == {"step": 2, "train_seconds": 1.5}
    assert again.weight[0] == 2 and again.moment[0] == 20
    assert torch.equal(torch.rand(3), drawn)


def test_nothing_to_load_is_none(start):
    with start() as checkpoints:
        assert checkpoints.load(Engine()) is None


def test_views_are_written_without_what_lies_behind_them(start, tmp_path):
    engine = Engine()
    engine.weight = torch.zeros(1_000_000)
    with start() as checkpoints:
        checkpoints.save(engine, {"step": 1})
    model = tmp_path / "checkpoints" / "step_00000001" / "state" / "mp_rank_00_model_states.pt"
    assert model.stat().st_size < 10_000


def test_a_failed_write_is_heard_of_and_leaves_the_checkpoint_before(start, tmp_path):
    engine = Engine()
    with pytest.raises(RuntimeError, match=r"checkpoints could not be written: .*Can't pickle"), start() as checkpoints:
        checkpoints.save(engine, {"step": 1})
        checkpoints.save(engine, {"step": 2, "window": lambda: None})
        checkpoints.wait()
    assert names(tmp_path) == ["step_00000001"]


def test_the_lease_is_looked_at_before_a_checkpoint_is_published_and_before_others_are_removed(start, tmp_path):
    seen = []
    with start(lambda: seen.append([int(name[-8:]) for name in names(tmp_path)]), keep_last=1) as checkpoints:
        for step in (1, 2):
            checkpoints.save(Engine(), {"step": step})
    assert seen == [[], [1], [1], [1, 2]]


def test_nothing_is_published_where_the_lease_cannot_be_confirmed(start, tmp_path):
    def away():
        raise OSError("Stale file handle")

    with pytest.raises(RuntimeError, match="Stale file handle"), start(away) as checkpoints:
        checkpoints.save(Engine(), {"step": 1})
        checkpoints.wait()
    assert names(tmp_path) == []


def test_an_error_of_the_run_is_not_hidden_behind_its_checkpoints(start):
    with pytest.raises(KeyError, match="the run's own"), start() as checkpoints:
        checkpoints.save(Engine(), {"step": 1})
        raise KeyError("the run's own")


def test_the_stall_is_measured(start):
    with start() as checkpoints:
        began = time.perf_counter()
        checkpoints.save(Engine(), {"step": 1})
        assert 0 < checkpoints.save_seconds <= time.perf_counter() - began


@pytest.mark.parametrize(
    ("policy", "with_optimizer_state"),
    [("all", [4, 8, 9, 10]), ("newest", [9, 10]), ("until_finished", [9, 10])],
)
def test_newest_and_every_mth_are_kept(start, tmp_path, policy, with_optimizer_state):
    with start(keep_last=2, keep_every=4, keep_optimizer_state=policy) as checkpoints:
        for step in range(1, 11):
            checkpoints.save(Engine(), {"step": step})
    folder = tmp_path / "checkpoints"
    assert [int(name[-8:]) for name in names(tmp_path)] == [4, 8, 9, 10]
    manifests = {path: read_manifest(path) for path in folder.glob("step_*")}
    assert sorted(m.step for m in manifests.values() if m.has_optimizer_state) == with_optimizer_state
    assert all(find_damage(path) is None for path in manifests)
    sizes = disk_use(folder)
    assert (sizes["step_00000004"] <= sizes["step_00000010"] - 4 * 1000) == (policy != "all")
    prune_finished_run(folder, CheckpointConfig(keep_optimizer_state=policy))
    left = [path for path in manifests if read_manifest(path).has_optimizer_state]
    assert len(left) == (0 if policy == "until_finished" else len(with_optimizer_state))


@pytest.mark.parametrize("policy", ["all", "newest", "until_finished"])
def test_where_others_branch_is_kept_with_optimizer_state(start, tmp_path, policy):
    with start(keep_last=1, keep_every=4, keep_optimizer_state=policy, also_at=[3, 6]) as checkpoints:
        for step in range(1, 8):
            checkpoints.save(Engine(), {"step": step})
    folder = tmp_path / "checkpoints"
    prune_finished_run(folder, CheckpointConfig(keep_optimizer_state=policy, also_at=[3, 6]))
    assert [int(name[-8:]) for name in names(tmp_path)] == [3, 4, 6, 7]
    manifests = [read_manifest(path) for path in folder.glob("step_*")]
    with_state = {manifest.step for manifest in manifests if manifest.has_optimizer_state}
    assert with_state == {"all": {3, 4, 6, 7}, "newest": {3, 6, 7}, "until_finished": {3, 6}}[policy]


def test_a_later_checkpoint_that_was_damaged_does_not_crowd_out_the_one_just_written(start, tmp_path):
    engine = Engine()
    with start(keep_last=1) as checkpoints:
        checkpoints.save(engine, {"step": 20})
        checkpoints.save(engine, {"step": 10})
    assert names(tmp_path) == ["step_00000010"]


def test_weights_alone_still_hold_the_weights(start, tmp_path):
    engine = Engine()
    engine.weight[:] = 3.0
    with start() as checkpoints:
        checkpoints.save(engine, {"step": 1})
    prune_finished_run(tmp_path / "checkpoints", CheckpointConfig(keep_optimizer_state="until_finished"))
    weights = tmp_path / "checkpoints" / "step_00000001" / "weights"
    content = torch.load(weights / "zero_pp_rank_0_mp_rank_00_optim_states.pt", weights_only=True)
    assert content["optimizer_state_dict"].keys() == {"single_partition_of_fp32_groups"}
    assert torch.equal(content["optimizer_state_dict"]["single_partition_of_fp32_groups"][0], engine.weight)
    assert not weights.with_name("state").exists()
    with start() as checkpoints, pytest.raises(ValueError, match="holds weights alone"):
        checkpoints.load(Engine())


@pytest.mark.parametrize(
    "changes", [{"every": -1}, {"keep_last": 0}, {"keep_every": 3, "every": 2}, {"keep_optimizer_state": "some"}]
)
def test_policies_that_make_no_sense_are_refused(start, changes):
    [key, *_] = changes
    with pytest.raises(ValueError, match=f"checkpoints.{key}="):
        start(**changes)
