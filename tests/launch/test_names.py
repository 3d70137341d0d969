"""Names of runs are readable, safe for folders and Slurm, and different for different values."""

import re

import pytest

from arvis_scale.launch.studies.names import joined_name


def test_what_every_run_has_comes_first_and_short():
    keys = {"objective": "xtra", "preset": "0.6B", "unique_images": None, "samples_seen": 640, "seed": 3}
    assert joined_name({**keys, "optimizer.learning_rate": 1e-4, "data.subset.exponent": 1.5}) == (
        "xtra-0.6B-uall-n640-s3-learning_rate_0.0001-exponent_1.5"
    )


@pytest.mark.parametrize(
    ("value", "readable"),
    [
        ("shards/my photos", "my_photos"),
        ("it's", "it_s"),
        ('a "quoted" one', "a__quoted__one"),
        ("$(touch x)", "__touch_x_"),
        ("/data/züri/", "z_ri"),
        ("a\nb", "a_b"),
        ("x" * 300, "x" * 40),
    ],
)
def test_values_that_no_folder_should_be_named_after_are_told_apart_by_a_hash(value, readable):
    name = joined_name({"data.shards": value})
    assert re.fullmatch(rf"shards_{re.escape(readable)}\.[0-9a-f]{{6}}", name)
    assert name != joined_name({"data.shards": value + "!"})


def test_lists_are_joined():
    assert joined_name({"digpt.decoders": ["generative", "discriminative"]}) == "decoders_generative+discriminative"
    assert joined_name({"data.subset.classes": []}) == "classes_none"


def test_long_names_end_in_a_hash_and_fit_a_folder():
    keys = {f"data.k{number}": "x" * 30 for number in range(20)}
    names = {joined_name({**keys, "seed": seed}) for seed in range(3)}
    assert len(names) == 3
    assert all(len(name) <= 200 for name in names)
