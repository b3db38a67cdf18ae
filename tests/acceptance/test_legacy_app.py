"""An existing app behaves the same without Taskyard, watched and protected, on both brokers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError, TaskRevokedError, TimeLimitExceeded

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import legacy_on
from support.waiting import SOON_S, eventually

MODES = ("none", "observe", "protect")


@dataclass
class Shop:
    """The running app and the producer's view of its tasks."""

    app: Legacy
    tasks: Any

    def get(self, result: Any) -> Any:
        try:
            return result.get(timeout=SOON_S)
        except TimeoutError:
            raise AssertionError(self.app.logs()) from None


@pytest.fixture(
    scope="module", params=[(m, b) for b in ("redis", "rabbitmq") for m in MODES], ids="-".join
)
def shop(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    mode, broker = request.param
    with legacy_on(broker, servers, tmp_path_factory.mktemp(mode), mode) as app:
        app.worker()
        with app.producer() as tasks:
            yield Shop(app, tasks)


def test_a_result_comes_back(shop: Shop) -> None:
    assert shop.get(shop.tasks.add.delay(1, 2)) == 3


def test_a_failure_is_its_own_exception(shop: Shop) -> None:
    with pytest.raises(ValueError, match="nothing to see"):
        shop.get(shop.tasks.fail.delay("nothing to see"))


def test_a_chain_hands_results_on(shop: Shop) -> None:
    assert shop.get(chain(shop.tasks.add.s(1, 2), shop.tasks.add.s(3)).delay()) == 6


def test_a_group_keeps_its_order(shop: Shop) -> None:
    parts = group(shop.tasks.add.s(number, number) for number in range(5))
    assert shop.get(parts.delay()) == [0, 2, 4, 6, 8]


def test_a_chord_sums_its_header(shop: Shop) -> None:
    header = [shop.tasks.add.s(number, number) for number in range(4)]
    assert shop.get(chord(header, shop.tasks.total.s()).delay()) == 12


def test_a_failed_part_fails_the_chord(shop: Shop) -> None:
    header = [shop.tasks.add.s(1, 1), shop.tasks.fail.s("part")]
    # Which of the two `get` meets first is a matter of milliseconds.
    with pytest.raises((ChordError, ValueError), match="part"):
        shop.get(chord(header, shop.tasks.total.s()).delay())


def test_chunks_cut_the_work(shop: Shop) -> None:
    cut = shop.tasks.add.chunks([(1, 2), (3, 4), (5, 6)], 2)
    assert shop.get(cut.apply_async()) == [[3, 7], [11]]


def test_retry_counts_and_may_change_the_arguments(shop: Shop) -> None:
    assert shop.get(shop.tasks.insist.delay(3)) == [3, "xx", 2]


def test_retry_ends_with_the_exception_it_was_given(shop: Shop) -> None:
    result = shop.tasks.insist.delay(99)
    with pytest.raises(shop.tasks.FlakyError, match="run 3"):
        shop.get(result)
    assert len(shop.app.notes(f"{result.id}:runs")) == 3


def test_a_retry_waits_for_its_countdown(shop: Shop) -> None:
    before = datetime.now(UTC)
    assert shop.get(shop.tasks.later.delay()) == 1
    assert datetime.now(UTC) - before >= timedelta(seconds=2)


def test_a_retry_may_go_to_another_queue(shop: Shop) -> None:
    result = shop.tasks.elsewhere.delay()
    assert "order" in shop.get(result)


def test_autoretry_retries_and_gives_up(shop: Shop) -> None:
    assert shop.get(shop.tasks.auto.delay(2)) == 2
    result = shop.tasks.auto.delay(9)
    with pytest.raises(shop.tasks.FlakyError):
        shop.get(result)
    assert len(shop.app.notes(f"{result.id}:runs")) == 3


@pytest.mark.parametrize(("what", "outcome"), [("task", 42), ("chain", 42), ("group", [0, 2, 4])])
def test_a_replaced_task_has_its_replacements_result(shop: Shop, what: str, outcome: Any) -> None:
    assert shop.get(shop.tasks.become.delay(what)) == outcome


def test_a_replacement_in_a_chain_goes_on_with_the_chain(shop: Shop) -> None:
    result = chain(shop.tasks.become.s("chain"), shop.tasks.add.s(8)).delay()
    assert shop.get(result) == 50


def test_links_and_errbacks_are_called(shop: Shop) -> None:
    name = f"link:{shop.app.prefix}"
    shop.tasks.add.apply_async((1, 2), link=shop.tasks.callback.s(name))
    assert shop.app.await_notes(name, 1) == ["3"]
    result = shop.tasks.fail.apply_async(("gone",), link_error=shop.tasks.errback.s())
    assert shop.app.await_notes(f"{result.id}:errback", 1) == ["ValueError"]


def test_an_ignored_result_is_not_stored(shop: Shop) -> None:
    result = shop.tasks.ignored.delay("ignored")
    shop.app.await_notes("ignored", 1)
    assert result.state == "PENDING"


def test_a_custom_task_class_sees_every_hook(shop: Shop) -> None:
    result = shop.tasks.told.delay("retry")
    assert shop.get(result) == "retry"
    # Sorted: Celery publishes the retry before it calls `on_retry`.
    assert sorted(shop.app.await_notes(f"{result.id}:hooks", 5)) == [
        "after_return SUCCESS",
        "before_start",
        "before_start",
        "on_retry FlakyError",
        "on_success",
    ]
    assert len(shop.app.notes(f"{result.id}:call")) == 2
    assert shop.app.await_notes(f"{result.id}:signals", 1) == ["retry"]


def test_a_custom_task_class_sees_its_failure(shop: Shop) -> None:
    result = shop.tasks.told.delay("fail")
    with pytest.raises(KeyError):
        shop.get(result)
    assert shop.app.await_notes(f"{result.id}:hooks", 3) == [
        "before_start",
        "on_failure KeyError",
        "after_return FAILURE",
    ]
    assert shop.app.await_notes(f"{result.id}:request_failure", 1)
    assert shop.app.notes(f"{result.id}:signals") == ["failure KeyError"]


def test_a_custom_request_class_sees_the_hard_limit(shop: Shop) -> None:
    result = shop.tasks.overtime.delay()
    with pytest.raises(TimeLimitExceeded):
        shop.get(result)
    assert shop.app.await_notes(f"{result.id}:request_timeout", 1) == ["hard"]
    hooks = shop.app.await_notes(f"{result.id}:hooks", 2)
    assert hooks[:2] == ["before_start", "on_failure TimeLimitExceeded"]


def test_a_soft_limit_is_raised_inside(shop: Shop) -> None:
    with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
        shop.get(shop.tasks.soft.delay())


def test_a_rejected_task_runs_once_and_fails(shop: Shop) -> None:
    result = shop.tasks.reject.delay()
    eventually(lambda: result.state == "FAILURE", "a failure", why=shop.app.logs)
    assert len(shop.app.notes(f"{result.id}:runs")) == 1


def test_a_task_may_set_a_state_of_its_own_and_be_ignored(shop: Shop) -> None:
    result = shop.tasks.shrug.delay()
    eventually(lambda: result.state == "SHRUGGED", "its own state", why=shop.app.logs)
    assert result.info == {"why": "because"}


def test_an_expired_task_is_revoked(shop: Shop) -> None:
    result = shop.tasks.add.apply_async((1, 2), expires=datetime.now(UTC) - timedelta(seconds=5))
    with pytest.raises(TaskRevokedError):
        shop.get(result)
    assert "expired" in shop.app.await_notes(f"{result.id}:signals", 1)


def test_a_message_with_a_date_comes_at_its_time(shop: Shop) -> None:
    due = datetime.now(UTC) + timedelta(seconds=2)
    result = shop.tasks.once.apply_async(eta=due)
    assert shop.get(result) == 1
    assert datetime.now(UTC) >= due


def test_another_serializer_works(shop: Shop) -> None:
    assert shop.get(shop.tasks.in_yaml.delay([1])) == "list"


def test_rate_limited_tasks_all_run(shop: Shop) -> None:
    results = [shop.tasks.limited.delay(number) for number in range(5)]
    assert [shop.get(result) for result in results] == list(range(5))


def test_a_priority_is_accepted(shop: Shop) -> None:
    assert shop.get(shop.tasks.add.apply_async((1, 2), priority=9)) == 3


def test_a_topic_exchange_leads_to_its_queue(shop: Shop) -> None:
    exchange = shop.tasks.app.conf.task_queues[1].exchange
    result = shop.tasks.whoami.apply_async(
        exchange=exchange, routing_key="order.placed", declare=[shop.tasks.app.conf.task_queues[1]]
    )
    assert shop.get(result)["key"] == "order.placed"


def test_a_task_called_directly_just_runs(shop: Shop) -> None:
    assert shop.tasks.add(1, 2) == 3
    assert shop.tasks.add.apply((1, 2)).get() == 3
    assert shop.tasks.auto.apply((0,)).get() == 0


def test_a_dated_task_reads_its_own_date(shop: Shop) -> None:
    result = shop.tasks.envelope.apply_async(countdown=2)
    assert shop.get(result)["eta"] is not None


def test_a_retry_keeps_the_priority_that_it_came_with(shop: Shop) -> None:
    result = shop.tasks.envelope.apply_async((True,), priority=4)
    assert shop.get(result)["priority"] == 4
