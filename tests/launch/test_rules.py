"""Keys that follow from another key's value, wherever that value comes from."""

import pytest

from arvis_scale.launch.studies.study import load_study

STUDY = """
schema_version: 1
name: ruled
base: mine.yaml
set: {seed: 3}
axes:
  unique_images: [10, 1000, null]
references: false
rules: RULES
"""
BASE = """
schema_version: 1
objective: aim
preset: nano
samples_seen: 64
image_size: 32
patch_size: 8
global_batch_size: 64
micro_batch_size: 64
optimizer: {learning_rate: 1e-3}
data: {shards: shards/digits}
"""


@pytest.fixture
def rates(tmp_path):
    """Return a function: the weight decay of each run of the study with the given rules."""

    def load(rules):
        (tmp_path / "mine.yaml").write_text(BASE)
        (tmp_path / "ruled.yaml").write_text(STUDY.replace("RULES", rules))
        study = load_study(tmp_path / "ruled.yaml", tmp_path)
        return [run.config.optimizer.weight_decay for run in study.runs]

    return load


@pytest.mark.parametrize(
    "rules",
    [
        "{unique_images: {1000: {optimizer.weight_decay: 0.5}}}",
        "{unique_images: {'1000': {optimizer: {weight_decay: 0.5}}}}",
    ],
)
def test_a_number_is_itself_however_it_is_written(rates, rules):
    assert rates(rules) == [0.05, 0.5, 0.05]


def test_null_is_a_value(rates):
    assert rates("{unique_images: {null: {optimizer.weight_decay: 0.5}}}") == [0.05, 0.05, 0.5]


@pytest.mark.parametrize(
    "rule",
    [
        "objective: {aim: KEYS}",
        "optimizer.learning_rate: {0.001: KEYS}",
        "optimizer.learning_rate: {1e-3: KEYS}",
        "seed: {3: KEYS}",
        "precision: {fp32: KEYS}",
    ],
    ids=["base", "dotted", "as written", "set", "default"],
)
def test_the_value_may_come_from_anywhere(rates, rule):
    assert rates("{" + rule.replace("KEYS", "{optimizer.weight_decay: 0.5}") + "}") == [0.5] * 3


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("{unique_image: {10: {seed: 1}}}", "unknown key 'unique_image'; did you mean 'unique_images'?"),
        ("{unique_images: {100: {seed: 1}}}", "rules.unique_images.100 is for no run: unique_images is 10, 1000, None"),
        ("{objective: {xtra: {seed: 1}}}", "rules.objective.xtra is for no run: objective is aim"),
        ("{unique_images: {true: {seed: 1}}}", "rules.unique_images.True is for no run"),
        ("{objective: {aim: {sead: 1}}}", "unknown key 'sead'; did you mean 'seed'?"),
        ("{preset: 3}", "rules.preset must map values of preset to keys, not be 3"),
        ("{preset: {nano: 3}}", "rules.preset.nano must be a mapping of keys, not 3"),
        ("[1]", "rules must be a mapping of keys, not [1]"),
    ],
)
def test_rules_that_could_not_work_are_named(rates, rules, said):
    with pytest.raises(ValueError) as caught:
        rates(rules)
    assert said in str(caught.value)
    assert "ruled.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_keys_together_have_rules_of_their_own(rates):
    assert rates("{'seed, unique_images': {'3, 1e3': {optimizer.weight_decay: 0.5}}}") == [0.05, 0.5, 0.05]
    assert rates("{'objective, unique_images': {'aim, null': {optimizer.weight_decay: 0.5}}}") == [0.05, 0.05, 0.5]
    with pytest.raises(ValueError, match="is for no run: seed, unique_images is 3, 10; 3, 1000; 3, None"):
        rates("{'seed, unique_images': {'4, 10': {optimizer.weight_decay: 0.5}}}")
    with pytest.raises(ValueError, match="is for no run"):
        rates("{'seed, unique_images': {3: {optimizer.weight_decay: 0.5}}}")
    with pytest.raises(ValueError, match="sead"):
        rates("{'sead, unique_images': {'3, 10': {optimizer.weight_decay: 0.5}}}")
