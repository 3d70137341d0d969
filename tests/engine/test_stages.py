"""Stages of a pipeline share the work as evenly as their layers allow."""

from itertools import combinations, pairwise

import pytest

from arvis_scale.config import load_config
from arvis_scale.engine.parallel.stages import balanced_bounds, layer_flops, stage_bounds

GIVEN = ["name=a", "output=runs/a", "data.shards=shards/a", "parallel.strategy=pipeline"]
RUNS = [["objective=xtra"], ["objective=digpt", "teacher.kind=pixels"], ["objective=mae"]]


def sums(costs, bounds):
    return [sum(costs[first:last]) for first, last in pairwise(bounds)]


@pytest.mark.parametrize("num_stages", [1, 2, 3, 5, 7])
def test_no_other_cut_has_a_lighter_heaviest_stage(num_stages):
    costs = [1, 9, 3, 3, 3, 0, 8]
    bounds = balanced_bounds(costs, num_stages)
    cuts = combinations(range(1, len(costs)), num_stages - 1)
    assert max(sums(costs, bounds)) == min(max(sums(costs, [0, *cut, len(costs)])) for cut in cuts)
    assert bounds[0] == 0 and bounds[-1] == len(costs) and sorted(set(bounds)) == bounds
    assert len(bounds) == num_stages + 1


@pytest.mark.parametrize("run", RUNS)
def test_the_layers_of_a_run_have_its_flops_and_every_stage_its_share(run):
    config = load_config("digits", [*GIVEN, *run, "parallel.processes=4", "parallel.stages=4", "micro_batch_size=8"])
    costs = layer_flops(config)
    assert costs[1] > 0
    shares = sums(costs, stage_bounds(config))
    assert max(shares) < sum(costs) / 4 + max(costs)


def test_twice_the_images_cost_twice_as_much():
    few = load_config("digits", [*GIVEN, *RUNS[0], "parallel.processes=2", "parallel.stages=2", "micro_batch_size=4"])
    many = load_config("digits", [*GIVEN, *RUNS[0], "parallel.processes=2", "parallel.stages=2", "micro_batch_size=8"])
    assert [2 * flops for flops in layer_flops(few)] == layer_flops(many)


def test_more_stages_than_layers_are_refused():
    with pytest.raises(ValueError, match="parallel.stages=3 is more than the objective has layers, 2"):
        balanced_bounds([1, 1], 3)
