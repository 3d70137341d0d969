"""The configuration is strict, and says what to do."""

import pytest

from arvis_scale.config import ConfigBuilder, RunConfig, build_config, load_config, recipe_names, save_config

GIVEN = ["name=a", "output=runs/a", "objective=xtra", "data.shards=shards/a"]


def test_overrides_are_typed(tmp_path):
    config = load_config("digits", [*GIVEN, "optimizer.learning_rate=1e-4", "unique_images=null", "data.num_workers=2"])
    assert config.optimizer.learning_rate == 1e-4
    assert config.unique_images is None
    assert config.data.num_workers == 2


def test_saved_config_is_complete_and_loads_to_the_same_run(tmp_path):
    config = load_config("digits", [*GIVEN, "parallel.deepspeed={zero_optimization: {overlap_comm: true}}"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(str(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.learning_rat=1", "unknown key 'optimizer.learning_rat'; did you mean 'learning_rate'?"),
        ("learning_rate=1", "did you mean 'optimizer.learning_rate'?"),
        ("optimizer.lr=1", "optimizer has name, learning_rate,"),
        ("unique_image=1", "did you mean 'unique_images'?"),
        ("seed=soon", "seed='soon'"),
        ("objective=xtrah", "did you mean 'xtra'?"),
        ("parallel.strategy=zero4", "parallel.strategy='zero4'"),
        ("precision=fp16", "precision='fp16'"),
        (
            "micro_batch_size=48",
            "global_batch_size=64 is not a multiple of micro_batch_size=48 x parallel.processes=1 = 48",
        ),
        ("parallel.processes=3", "micro_batch_size=64 x parallel.processes=3 = 192"),
        ("samples_seen=-1", "samples_seen=-1"),
        ("unique_images=0", "unique_images=0"),
        ("optimizer.clip_grad_norm=0", "clip_grad_norm=0"),
        ("objective=digpt", "teacher.checkpoint"),
        ("optimizer.learning_rate=0", "optimizer.learning_rate=0"),
        ("seed=-1", "seed=-1"),
        ("data.crop_scale_min=3", "data.crop_scale_min=3"),
        ("data.crop_scale_max=1.5", "data.crop_scale_max=1.5"),
        ("name=[a", "'[a' is not a YAML value"),
        ("schema_version=2", "schema_version 2, this arvis_scale reads up to 1"),
        ("seed", "'seed' is not of the form key=value"),
    ],
)
def test_bad_values_are_refused_in_one_line_that_names_them(override, said):
    with pytest.raises(ValueError) as caught:
        load_config("digits", [*GIVEN, override])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["unique_images=5"], "knows no samples by number, which unique_images=5 asks for; write an index"),
        (["objective=igpt"], "which objective=igpt asks for"),
        (["guards.loss_spike=rewind"], "which guards.loss_spike=rewind asks for"),
        (["parent=runs/b"], "which parent=runs/b asks for"),
        (["objective=digpt", "teacher.tokens=shards/a/tokens/b"], "which teacher.tokens=shards/a/tokens/b asks for"),
        (["data.subset.kind=balanced"], "which data.mix, data.subset and data.epoch_end=drop ask for; write an index"),
        (["data.epoch_end=drop"], "which data.mix, data.subset and data.epoch_end=drop ask for"),
        (["data.validation_split=test"], "data.validation_split=test: a stream has no splits"),
        (["data.validation_split=held_out"], "data.validation_split=held_out: a stream knows no samples by number"),
        (["data.streaming=false", "data.validation_shards=b"], "data.validation_shards=b is for data.streaming=true"),
    ],
)
def test_what_a_stream_cannot_give_is_refused_in_one_line(overrides, said):
    with pytest.raises(ValueError) as caught:
        load_config("digits", [*GIVEN, "data.streaming=true", *overrides])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_keys_are_listed():
    with pytest.raises(ValueError, match="objective, output must be given"):
        load_config("digits", ["name=a", "data.shards=b"])


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        load_config("digit", GIVEN)


def test_every_recipe_loads():
    for name in recipe_names():
        assert isinstance(load_config(name, GIVEN), RunConfig)


def test_steps_are_whole_global_batches():
    config = load_config("digits", [*GIVEN, "samples_seen=130", "micro_batch_size=16", "parallel.processes=2"])
    assert config.num_steps == 3
    assert config.accumulation_steps == 2


def test_runs_of_one_builder_are_those_built_alone():
    base = {"name": "a", "output": "b", "objective": "xtra", "samples_seen": 64, "data": {"shards": "c"}}
    builder = ConfigBuilder(base)
    several = [
        {},
        {"seed": "3", "optimizer.learning_rate": "1e-3"},
        {"data.mix": [{"shards": "x", "weight": 2}], "data.shards": None},
        {"parallel.deepspeed.zero_optimization.overlap_comm": True},
        {"parallel.deepspeed": {"zero_optimization": {"stage3_max_live_parameters": 5}}, "parallel.deepspeed.x.y": 1},
        {"data": {"subset": {"kind": "long_tail"}}},
        {"name": "${objective}-${seed}"},
        {"seed": 1},
        {},
    ]
    for overrides in [*several, *several]:
        assert builder.build(overrides, "test") == build_config(base, overrides, "test")
    assert builder.build(several[4], "test").parallel.deepspeed == {
        "zero_optimization": {"stage3_max_live_parameters": 5},
        "x": {"y": 1},
    }
    assert builder.build(several[6], "test").name == "xtra-0"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"seed": 1.5}, "seed=1.5"),
        ({"optimizer": 3}, "optimizer=3"),
        ({"optimizer": None}, "optimizer=None"),
        ({"data.mix": [{"weight": 1}]}, r"data.mix\[0\].shards must be given"),
        ({"name": "???"}, "name must be given"),
        ({"data": {"subset": {"sort": 1}}}, "unknown key 'data.subset.sort'"),
        ({"name": "${nowhere}"}, "nowhere"),
    ],
)
def test_a_builder_refuses_a_value_every_time(overrides, said):
    builder = ConfigBuilder({"name": "a", "output": "b", "objective": "xtra", "samples_seen": 64})
    for _ in range(2):
        with pytest.raises(ValueError, match=said):
            builder.build({"data.shards": "c", **overrides}, "test")
    builder.build({"data.shards": "c"}, "test")
