"""The order in which a pop looks into the lists."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.transport.pop_request import Order

STEPS = (0, 3, 6, 9)


def served(order: Order, queues: list[str], pops: int, batch: int = 16) -> Counter[tuple[str, int]]:
    """Who is served first, as if every list were full."""
    firsts: Counter[tuple[str, int]] = Counter()
    for _ in range(pops):
        pairs, wanted = order.next(queues, batch)
        firsts[pairs[0]] += wanted
    return firsts


def test_urgent_levels_come_first_in_every_queue() -> None:
    pairs, wanted = Order(STEPS, 0).next(["a", "b"], 16)
    assert [step for _, step in pairs] == [0, 0, 3, 3, 6, 6, 9, 9]
    assert wanted == 16


def test_queues_of_one_level_take_turns() -> None:
    firsts = served(Order(STEPS, 0), ["a", "b", "c"], 300)
    assert firsts == {("a", 0): 1600, ("b", 0): 1600, ("c", 0): 1600}


@given(
    queues=st.integers(1, 5).map(lambda n: [f"q{i}" for i in range(n)]),
    fairness=st.integers(2, 20),
    batch=st.integers(1, 32),
)
def test_every_pop_looks_everywhere_and_never_asks_for_more_than_it_may(
    queues: list[str], fairness: int, batch: int
) -> None:
    order = Order(STEPS, fairness)
    for _ in range(3 * fairness):
        pairs, wanted = order.next(queues, batch)
        assert sorted(pairs) == sorted((queue, step) for queue in queues for step in STEPS)
        assert 1 <= wanted <= batch


@given(fairness=st.integers(2, 20), count=st.integers(1, 5))
def test_the_least_urgent_level_of_every_queue_gets_its_floor(fairness: int, count: int) -> None:
    queues = [f"q{i}" for i in range(count)]
    pops = fairness * count * 4
    firsts = served(Order(STEPS, fairness), queues, pops, batch=1)
    assert sum(firsts[queue, 9] for queue in queues) == pops // fairness
    assert all(firsts[queue, 9] for queue in queues)


@given(fairness=st.integers(2, 20), batch=st.integers(1, 32))
def test_the_floor_is_a_share_of_the_messages_not_of_the_pops(fairness: int, batch: int) -> None:
    pops = 40 * fairness
    firsts = served(Order(STEPS, fairness), ["a"], pops, batch)
    share = firsts["a", 9] / sum(firsts.values())
    assert 1 / (1 + max(fairness - 1 + batch, 3 * batch)) <= share <= 1 / fairness


def test_without_fairness_urgency_is_absolute() -> None:
    firsts = served(Order(STEPS, 0), ["a"], 100)
    assert set(firsts) == {("a", 0)}


def test_where_queues_do_not_rotate_the_first_stays_first() -> None:
    order = Order(STEPS, 0, rotates=False)
    firsts = served(order, ["a", "b", "c"], 10, batch=1)
    assert firsts == {("a", 0): 10}


@pytest.mark.parametrize("fairness", [-1, 1])
def test_a_fairness_that_means_nothing_is_refused(fairness: int) -> None:
    message = f"fairness must be 0 .off. or at least 2, got {fairness}"
    with pytest.raises(ValueError, match=message):
        Order(STEPS, fairness)
