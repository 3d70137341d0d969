"""The bounded map that building and checking run on."""

from __future__ import annotations

from collections.abc import Iterator

from arvis_scale.data.concurrency import map_in_order


def test_results_keep_their_order_and_the_input_is_not_read_far_ahead() -> None:
    started: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(10_000):
            started.append(number)
            yield number

    results = map_in_order(lambda number: -number, numbers())
    assert next(results) == 0
    assert len(started) < 200  # 16 threads at most, some items for each
    assert list(results) == [-number for number in range(1, 10_000)]
