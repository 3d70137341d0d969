"""The learning rate of every step."""

import math
from itertools import pairwise

import pytest

from arvis_scale.config import OptimizerConfig, load_config
from arvis_scale.engine.checks import check_run
from arvis_scale.engine.parallel.schedule import learning_rate_factor

GIVEN = [
    "name=a",
    "output=runs/a",
    "objective=xtra",
    "data.shards=shards/a",
    "global_batch_size=32",
    "micro_batch_size=32",
]
STABLE = {"schedule": "warmup_stable_decay", "warmup_samples": 320, "cooldown_fraction": 0.2}


def rates(num_steps, **changes):
    config = OptimizerConfig(learning_rate=1e-3, initial_learning_rate=1e-4, final_learning_rate=1e-6, **changes)
    factor = learning_rate_factor(config, num_steps, global_batch_size=32)
    return [1e-3 * factor(step) for step in range(num_steps)]


def test_cosine_warms_up_to_the_peak_and_decays_to_the_end():
    cosine = rates(100, warmup_fraction=0.1)
    assert cosine[0] == pytest.approx(1e-4)
    assert cosine[10] == pytest.approx(1e-3)
    assert cosine[99] == pytest.approx(1e-6)
    assert all(a < b for a, b in pairwise(cosine[:11]))
    assert all(a > b for a, b in pairwise(cosine[10:]))


def test_no_warm_up_starts_at_the_peak():
    assert rates(10, warmup_fraction=0.0)[0] == 1e-3


def test_stable_schedule_warms_up_stays_and_cools_down():
    stable = rates(100, **STABLE)
    assert stable[0] == pytest.approx(1e-4)
    assert all(a < b for a, b in pairwise(stable[:11]))
    assert stable[10:81] == [1e-3] * 71
    assert all(a > b for a, b in pairwise(stable[80:]))
    assert stable[99] == pytest.approx(1e-6)


def test_cool_down_falls_with_the_square_root_of_its_progress():
    """arXiv 2405.18392, equation 1: half-way through the cool-down the rate is 1 - sqrt(1/2) of the way to its end."""
    stable = rates(101, **{**STABLE, "cooldown_fraction": 21 / 101})
    assert stable[90] == pytest.approx(1e-6 + (1e-3 - 1e-6) * (1 - math.sqrt(0.5)))


@pytest.mark.parametrize(("num_steps", "expected"), [(5, [1e-3] * 4 + [1e-6]), (10, [1e-3] * 9 + [1e-6])])
def test_a_cool_down_of_one_step_or_two_ends_at_the_final_rate(num_steps, expected):
    assert rates(num_steps, **{**STABLE, "warmup_samples": 0}) == pytest.approx(expected)


def test_without_a_cool_down_the_rate_stays_at_its_peak():
    assert rates(5, **{**STABLE, "warmup_samples": 0, "cooldown_fraction": 0.0}) == [1e-3] * 5


@pytest.mark.parametrize("num_steps", [8, 10, 33, 512])
def test_rates_of_longer_cool_downs_are_to_the_last_bit_what_they_were(num_steps):
    start = num_steps - round(0.2 * num_steps)
    final = 1e-6 / 1e-3
    expected = [
        1e-3 * (final + (1.0 - final) * (1.0 - math.sqrt((step - start) / (num_steps - 1 - start))))
        for step in range(start, num_steps)
    ]
    assert rates(num_steps, **{**STABLE, "warmup_samples": 0})[start:] == expected


def test_runs_of_every_length_share_their_rates_until_the_shorter_one_cools_down():
    short, long = rates(50, **STABLE), rates(200, **STABLE)
    assert short[:41] == long[:41]
    assert short[41] < long[41]


def test_warm_up_in_samples_holds_for_the_cosine_too():
    assert rates(100, warmup_samples=320) == rates(100, warmup_fraction=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.schedule=warmup", "optimizer.schedule='warmup' is not known; one of cosine, warmup_stable_decay"),
        ("optimizer.cooldown_fraction=1.5", "optimizer.cooldown_fraction=1.5 must lie between 0 and 1"),
        ("optimizer.warmup_samples=-1", "optimizer.warmup_samples=-1 must not be negative"),
        ("optimizer.warmup_samples=640", "warm up for 20 steps, but the cool-down .* of 20 begins after 16"),
    ],
)
def test_a_schedule_that_no_run_can_follow_is_refused(change, message):
    stable = ["optimizer.schedule=warmup_stable_decay", "samples_seen=640"]
    with pytest.raises(ValueError, match=message):
        load_config("digits", [*GIVEN, *stable, change])


def test_a_cool_down_of_no_step_is_refused_before_training_and_read_after_it(digits, tmp_path):
    """Folders of runs that had been trained with one could not be read any more."""
    shards, output = f"data.shards={digits}", f"output={tmp_path / 'run'}"
    stable = ["optimizer.schedule=warmup_stable_decay", "samples_seen=640", "optimizer.cooldown_fraction=0.02"]
    config = load_config("digits", [*GIVEN, *stable, shards, output])
    with pytest.raises(ValueError, match=r"cooldown_fraction=0.02 of 20 steps rounds to none, .* set it to 0"):
        check_run(config)
