"""Axes, points, exclusions, tuning and resources of a study, as its runs show them."""

import pytest

from arvis_scale.launch.studies.resources import Resources
from arvis_scale.launch.studies.study import load_study

STUDY = """
schema_version: 1
name: wide
base: digits
set: {data.shards: shards/digits, samples_seen: 640, objective: xtra, preset: nano}
"""


@pytest.fixture
def runs(tmp_path):
    """Return a function: the runs of a study with further sections, by name."""

    def load(sections):
        references = "" if "references" in sections else "references: false\n"
        (tmp_path / "wide.yaml").write_text(STUDY + references + sections)
        return {run.config.name: run for run in load_study(tmp_path / "wide.yaml", tmp_path / "out").runs}

    return load


def test_any_key_can_be_an_axis(runs):
    found = runs("axes: {data.subset.exponent: [0, 1.5], data.subset.kind: [long_tail], parallel.strategy: [zero1]}")
    assert list(found) == [
        "xtra-nano-uall-n640-s0-exponent_0.0-kind_long_tail-strategy_zero1",
        "xtra-nano-uall-n640-s0-exponent_1.5-kind_long_tail-strategy_zero1",
    ]
    assert [run.config.data.subset.exponent for run in found.values()] == [0.0, 1.5]


def test_a_section_can_be_an_axis(runs):
    found = runs("axes: {optimizer: [{name: adamw}, {name: muon, clip_grad_norm: .inf}]}")
    assert [run.config.optimizer.name for run in found.values()] == ["adamw", "muon"]


def test_one_value_has_one_name_however_it_is_written(runs):
    (plain,) = runs("axes: {optimizer.learning_rate: [0.001]}")
    assert plain == "xtra-nano-uall-n640-s0-learning_rate_0.001"
    assert list(runs("axes: {optimizer.learning_rate: [1e-3]}")) == [plain]
    with pytest.raises(ValueError, match=f"two runs are named {plain}"):
        runs("axes: {optimizer.learning_rate: [1e-3, 0.001]}")


def test_a_name_does_not_depend_on_the_other_values(runs):
    few, more = (runs(f"axes: {{micro_batch_size: [{sizes}], seed: [0]}}") for sizes in ("32", "32, 64"))
    assert set(few) < set(more)


def test_excluded_runs_are_left_out(runs):
    found = runs(
        "axes: {preset: [nano, micro], seed: [0, 1]}\n"
        "exclude: [{preset: micro, seed: 1}, {optimizer.learning_rate: 6e-3, seed: 0}]"
    )
    assert list(found) == ["xtra-nano-uall-n640-s1"]
    found = runs("axes: {preset: [nano, micro], seed: [0, 1, 2]}\nexclude: [{preset: [micro, mini], seed: [0, '2']}]")
    assert list(found)[-1] == "xtra-micro-uall-n640-s1" and len(found) == 4


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ("exclude: [{preset: Micro}]", r"exclude\[0\] leaves out nothing, no run has {'preset': 'Micro'}"),
        ("exclude: [{seed: 0}, {seed: 1}]", "exclude leaves nothing to run"),
        ("exclude: [{seed: []}]", r"exclude\[0\].seed is an empty list"),
        ("exclude: [{presett: nano}]", "exclude: unknown key 'presett'; did you mean 'preset'"),
        ("exclude: [{}]", "every entry of exclude must be a mapping of keys, not {}"),
        ("points: [{seed: 1, preset: L}]\nexclude: [{preset: L}]", r"points\[0\] is left out by exclude\[0\]"),
        ("tune: {seed: [2]}", "seed is in axes and in tune"),
        ("tune: {optimizer.learning_rate: []}", "tune.optimizer.learning_rate must be a list of values"),
        ("tune: {optimizer.rate: [1]}", "tune: unknown key 'optimizer.rate'"),
        ("points: [{name: x}]", "every run gets its name from the study"),
        ("points: [{resources.hour: 1}]", "unknown key 'resources.hour'; did you mean 'resources.hours'"),
        ("points: [{seed: 3, resources.hours: -1}]", "resources.hours=-1 must be a number above 0"),
        ("points: [{seed: 3, resources.cpus_per_process: 1.5}]", "resources.cpus_per_process=1.5 must be a whole"),
        ("points: [{seed: 3, resources.partition: 2}]", "resources.partition=2 must be a name"),
        ("budget: {device_hours: 0}", "budget.device_hours=0.0 must be positive"),
        ("budget: {hours: 1}", "unknown key 'budget.hours'; did you mean 'device_hours'"),
        ("launch: {max_attempts: 0}", "launch.max_attempts=0 must be at least 1"),
        ("launch: {max_attempts: 21}", "launch.max_attempts=21 must be at most 20"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(runs, sections, said):
    with pytest.raises(ValueError, match=said) as caught:
        runs("axes: {seed: [0, 1]}\n" + sections)
    assert "wide.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a/b", ".hidden", "two\\nlines"])
def test_a_study_whose_name_is_no_folder_is_refused(tmp_path, name):
    (tmp_path / "wide.yaml").write_text(STUDY.replace("wide", f'"{name}"') + "axes: {seed: [0]}")
    with pytest.raises(ValueError, match="name="):
        load_study(tmp_path / "wide.yaml", tmp_path)


def test_tuned_runs_know_their_cell(runs):
    found = runs(
        "axes: {preset: [nano, micro]}\n"
        "tune: {optimizer.learning_rate: [1e-3, 3e-3]}\n"
        "points: [{seed: 1}, {seed: 2, optimizer.learning_rate: 1e-2}]"
    )
    assert {name: run.cell for name, run in found.items()} == {
        "xtra-nano-uall-n640-s0-learning_rate_0.001": "xtra-nano-uall-n640-s0",
        "xtra-nano-uall-n640-s0-learning_rate_0.003": "xtra-nano-uall-n640-s0",
        "xtra-micro-uall-n640-s0-learning_rate_0.001": "xtra-micro-uall-n640-s0",
        "xtra-micro-uall-n640-s0-learning_rate_0.003": "xtra-micro-uall-n640-s0",
        "xtra-nano-uall-n640-s1-learning_rate_0.001": "xtra-nano-uall-n640-s1",
        "xtra-nano-uall-n640-s1-learning_rate_0.003": "xtra-nano-uall-n640-s1",
        "xtra-nano-uall-n640-s2-learning_rate_0.01": None,
    }


def test_rules_give_resources_and_runs_keep_their_names(runs):
    found = runs(
        "axes: {preset: [nano, micro]}\n"
        "rules: {preset: {micro: {resources.hours: 2, resources.constraint: h100, micro_batch_size: 32}}}"
    )
    small, large = found.values()
    assert small.resources == Resources()
    assert large.resources == Resources(hours=2.0, constraint="h100")
    assert large.config.name == "xtra-micro-uall-n640-s0"
    assert large.config.micro_batch_size == 32


def test_runs_of_one_study_share_no_value_by_accident(runs):
    found = list(runs("axes: {parallel.deepspeed.a: [1, 2], data.subset.classes: [[x], [y]]}").values())
    assert [run.config.parallel.deepspeed for run in found] == [{"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}]
    assert [run.config.data.subset.classes for run in found] == [["x"], ["y"], ["x"], ["y"]]


VARIANTS = """
axes: {method: [XTRA-k1, XTRA-k2, "k = 1, again"]}
rules:
  method:
    XTRA-k1: {xtra.block_side: 1}
    XTRA-k2: {xtra.block_side: 2}
    "k = 1, again": {xtra.block_side: 1}
references: true
"""


def test_a_method_names_its_runs_and_has_untrained_encoders_of_its_own(runs):
    found = runs(VARIANTS)
    trained = {name: run.config for name, run in found.items() if run.config.samples_seen}
    assert [config.xtra.block_side for config in trained.values()] == [1, 2, 1]
    assert list(trained)[:2] == ["XTRA-k1-nano-uall-n640-s0", "XTRA-k2-nano-uall-n640-s0"]
    assert {config.method_name for config in trained.values()} == {"XTRA-k1", "XTRA-k2", "k = 1, again"}
    assert {"untrained-XTRA-k1-nano-s0", "untrained-XTRA-k2-nano-s0", "raw-pixels"} <= set(found)


@pytest.mark.parametrize("name", ["aim", "raw_pixels", "''"])
def test_a_method_may_not_pass_for_another(runs, name):
    with pytest.raises(ValueError, match="method=.* must be a name of its own"):
        runs(f"axes: {{method: [{name}]}}")
