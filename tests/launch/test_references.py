"""Every different untrained encoder, and every different raw image, has its reference."""

import pytest

from arvis_scale.launch.studies.study import load_study

STUDY = """
schema_version: 1
name: referenced
base: digits
set: {data.shards: shards/digits, probe_data.shards: shards/digits, samples_seen: 640, objective: xtra, preset: nano}
axes: AXES
"""


@pytest.fixture
def references(tmp_path):
    """Return a function: the reference runs of a study with the given axes, by name."""

    def load(axes):
        (tmp_path / "referenced.yaml").write_text(STUDY.replace("AXES", axes))
        runs = load_study(tmp_path / "referenced.yaml", tmp_path).runs
        return {run.config.name: run for run in runs if run.config.samples_seen == 0}

    return load


def test_what_changes_the_encoder_or_its_probe_has_a_reference_each(references):
    found = references("{xtra.block_side: [1, 2], seed: [0, 1], unique_images: [10, 100]}")
    assert list(found) == [
        "untrained-xtra-nano-s0-block_side_1",
        "untrained-xtra-nano-s1-block_side_1",
        "untrained-xtra-nano-s0-block_side_2",
        "untrained-xtra-nano-s1-block_side_2",
        "raw-pixels",
    ]
    config = found["untrained-xtra-nano-s1-block_side_2"].config
    assert (config.seed, config.xtra.block_side, config.unique_images) == (1, 2, None)
    assert config.output.endswith("runs/untrained-xtra-nano-s1-block_side_2")


def test_more_seeds_leave_the_references_that_there_are(references):
    """A second seed gave the first one's references new names, so that all of them ran again."""
    axes = "objective: [igpt, xtra], unique_images: [10, 100]"
    first = references(f"{{{axes}, seed: [0]}}")
    both = references(f"{{{axes}, seed: [0, 1]}}\nrules: {{seed: {{1: {{data.subset_seed: 1}}}}}}")
    assert set(first) < set(both)
    assert all(both[name].config == run.config for name, run in first.items())
    assert next(iter(references("{objective: [igpt], unique_images: [null]}"))) == "untrained-igpt-nano-uall-s0"
    assert [name for name in both if "-s1" in name] == [name.replace("-s0", "-s1") for name in both if "-s0" in name]


@pytest.mark.parametrize("preset", ["[nano, micro]", "[micro]"])
def test_what_only_trains_has_none_of_its_own(references, preset):
    unseen = "optimizer.weight_decay: [0.0, 0.1], data.horizontal_flip: [0.0, 0.5], aim.head_depth: [2, 3]"
    found = references(f"{{preset: {preset}, {unseen}, initial_weights: [null, runs/import]}}")
    names = [f"untrained-xtra-{name}-s0" for name in preset.strip("[]").split(", ")]
    assert list(found) == [*names, "raw-pixels"]
    assert all(run.config.initial_weights is None for run in found.values())


def test_raw_pixels_are_measured_at_every_size_and_on_every_probe_set(references):
    found = references("{image_size: [32, 64], probe_data.train_images: [100, null], patch_size: [8, 16]}")
    pixels = {name: run for name, run in found.items() if run.kind == "raw_pixels"}
    assert list(pixels) == [
        "raw-pixels-image_size_32-train_images_100",
        "raw-pixels-image_size_32-train_images_None",
        "raw-pixels-image_size_64-train_images_100",
        "raw-pixels-image_size_64-train_images_None",
    ]
    assert len(found) - len(pixels) == 8


def test_the_palette_of_igpt_comes_from_its_images(references):
    found = references("{objective: [igpt, xtra], unique_images: [10, 100]}")
    rest = ["untrained-xtra-nano-s0", "raw-pixels"]
    assert list(found) == ["untrained-igpt-nano-u10-s0", "untrained-igpt-nano-u100-s0", *rest]
    assert found["untrained-igpt-nano-u100-s0"].config.unique_images == 100


def test_a_schedule_that_needs_steps_is_no_hindrance_to_an_untrained_encoder(references):
    """Its warm-up does not fit into no steps: such references failed when they were started."""
    schedule = "optimizer: [{schedule: warmup_stable_decay, warmup_samples: 128, cooldown_fraction: 0.2}]"
    assert list(references(f"{{{schedule}}}")) == ["untrained-xtra-nano-s0", "raw-pixels"]
