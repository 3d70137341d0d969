"""Cluster profiles: those that ship are whole, and a mistake in one is named with its file and key."""

import pytest

from arvis_scale.launch.executors.profiles import load_profile, profile_names


def test_the_profiles_that_ship_can_be_read():
    assert profile_names() == ["a100", "h100", "local", "testcluster"]
    profiles = {name: load_profile(name) for name in profile_names()}
    assert profiles["h100"].most_processes_per_node == 8
    assert profiles["local"].most_processes_per_node == 1
    assert profiles["testcluster"].partition == "main"


def test_an_unknown_profile_is_told_with_the_one_that_was_meant():
    with pytest.raises(ValueError, match="launch.cluster=h10: there is no such profile; did you mean 'h100'?"):
        load_profile("h10")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("partitoin: gpu", "unknown key 'partitoin'; did you mean 'partition'?"),
        ("gpus_per_node: many", "gpus_per_node: Value 'many'"),
        ("hours: 0", "hours=0.0 must be above 0"),
        ("array_parallelism: 0", "array_parallelism=0 must be above 0"),
        ("gpus_per_node: -1", "gpus_per_node=-1 must not be negative"),
        ("{gpus_per_node: 2, processes_per_node: 4}", "processes_per_node=4 is more than gpus_per_node=2"),
        ("{hours: 0.01, signal_seconds: 60}", "signal_seconds=60 must be less than hours=0.01"),
        ("environment: {NOT-A-NAME: x}", "'NOT-A-NAME' is not a name of a variable"),
        ("schema_version: 2", "has schema_version 2"),
    ],
)
def test_a_mistake_is_named_with_its_file(tmp_path, line, message):
    (tmp_path / "mine.yaml").write_text(line)
    with pytest.raises(ValueError) as raised:
        load_profile(str(tmp_path / "mine.yaml"))
    assert str(tmp_path / "mine.yaml") in str(raised.value)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
