"""Installing: what is refused, which mode a task gets, and what stays the task's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery, chain, chord, group
from celery.worker.request import Request
from kombu import Exchange, Queue

from taskyard.engine.queue_routes import queue_named
from taskyard.errors import InvalidSettings, MissingSetting
from taskyard.install import Mode, install, plan
from taskyard.install.adopt_task import composed_request
from taskyard.install.effective_stamp import effective_stamp
from taskyard.install.modes import Modes
from taskyard.install.protected_request import ProtectedRequest
from taskyard.install.task_attempt_pipeline import successor_of
from taskyard.settings import Settings
from taskyard.wire.stamp_header import Stamp

SETTINGS = Settings(redis_url="redis://nowhere:1/0")


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("shop", broker="redis://nowhere:1/0", set_as_current=False) as made:
        yield made


def nothing() -> None:
    """A task's body."""


def total(*numbers: int) -> int:
    return sum(numbers)


def modes_of(app: Celery) -> dict[str, Mode]:
    return {task.name: task.mode for task in plan(app).tasks}


def test_without_a_redis_it_names_the_variable(app: Celery) -> None:
    with pytest.raises(MissingSetting, match="TASKYARD_REDIS_URL is not set"):
        install(app, settings=Settings())


def test_an_unknown_mode_is_refused_with_the_known_ones(app: Celery) -> None:
    with pytest.raises(InvalidSettings, match=r"'off', 'observe', 'protect', got 'guard'"):
        install(app, mode="guard", settings=SETTINGS)


def test_a_second_installation_is_refused(app: Celery) -> None:
    install(app, settings=SETTINGS)
    with pytest.raises(InvalidSettings, match=r"already installed on"):
        install(app, settings=SETTINGS)


def test_the_longest_pattern_wins_and_the_tasks_own_word_over_it() -> None:
    modes = Modes.read("observe", {"pay.*": "protect", "pay.test.*": "off"})
    assert modes.of("pay.now") is Mode.PROTECT
    assert modes.of("pay.test.now") is Mode.OFF
    assert modes.of("mail") is Mode.OBSERVE
    assert modes.of("pay.now", "off") is Mode.OFF


def test_celerys_own_tasks_have_the_apps_mode_unless_a_pattern_says_otherwise() -> None:
    assert Modes.read("protect", None).of("celery.chord_unlock") is Mode.PROTECT
    assert Modes.read("protect", {"celery.*": "off"}).of("celery.map") is Mode.OFF


@pytest.mark.parametrize("late", [False, True])
def test_tasks_made_before_and_after_are_adopted(app: Celery, late: bool) -> None:
    if not late:
        install(app, settings=SETTINGS)
    for name, options in {"a": {}, "b": {"acks_late": False}, "c": {"acks_late": True}}.items():
        app.task(name=name, lazy=False, shared=False, **options)(nothing)
    if late:
        app.finalize()
        install(app, settings=SETTINGS)
    app.finalize()
    app.task(name="d", shared=False)(nothing)
    assert modes_of(app) == {
        "a": Mode.PROTECT,
        "b": Mode.OBSERVE,
        "c": Mode.PROTECT,
        "d": Mode.PROTECT,
    }
    assert app.tasks["a"].acks_late is True
    assert app.tasks["b"].acks_late is False


def test_early_acknowledgement_by_annotation_is_a_wish_too(app: Celery) -> None:
    app.conf.task_annotations = {"a": {"acks_late": False}}
    install(app, settings=SETTINGS)
    app.task(name="a", shared=False)(nothing)
    assert modes_of(app) == {"a": Mode.OBSERVE}


def test_a_broker_of_another_kind_is_observed_at_most(app: Celery) -> None:
    app.conf.broker_url = "memory://"
    install(app, settings=SETTINGS)
    app.task(name="a", shared=False)(nothing)
    assert modes_of(app) == {"a": Mode.OBSERVE}


def test_the_apps_request_class_comes_before_ours() -> None:
    class Own(Request):
        pass

    composed = composed_request(Own, ProtectedRequest)
    assert composed.__mro__.index(Own) < composed.__mro__.index(ProtectedRequest)
    assert composed_request(Request, ProtectedRequest) is ProtectedRequest


def test_an_adopted_task_still_runs_when_called_and_eagerly(app: Celery) -> None:
    install(app, settings=SETTINGS)
    add = app.task(name="add", shared=False)(total)
    assert add(1, 2) == 3
    assert add.apply((1, 2)).get() == 3


def test_the_bearer_of_a_jobs_id_is_found_in_every_canvas(app: Celery) -> None:
    add = app.task(name="add", shared=False)(total)
    for signature in (add.s(1), chain(add.s(1), add.s(2)), chord([add.s(1)], add.s())):
        signature.freeze("the-job")
        found = successor_of(signature, "the-job")
        assert found is not None
        assert found["task"] == "add"
    loose = group(add.s(1), add.s(2))
    loose.freeze("the-job")
    assert successor_of(loose, "the-job") is None


def test_a_message_stands_where_its_stamp_or_celerys_count_says() -> None:
    assert effective_stamp(None, 0) is None
    assert effective_stamp(None, 2) == Stamp(0, 0, 2)
    assert effective_stamp(Stamp(7, 1, 1), 2) == Stamp(7, 1, 2)
    assert effective_stamp(Stamp(7, 1, 3), None) == Stamp(7, 1, 3)


@pytest.mark.parametrize("junk", [True, -1, 2**31, 1.5, "2", [2]])
def test_a_count_of_retries_that_is_none_counts_nothing(junk: object) -> None:
    assert effective_stamp(None, junk) is None
    assert effective_stamp(Stamp(7, 1, 3), junk) == Stamp(7, 1, 3)


def test_a_queue_is_found_by_exchange_and_key(app: Celery) -> None:
    orders = Exchange("shop", type="topic")
    app.conf.task_queues = [
        Queue("placed", orders, routing_key="order.placed.#"),
        Queue("all", orders, routing_key="order.#"),
        Queue("plain"),
    ]
    assert queue_named(app, "", "plain", "x") == "plain"
    assert queue_named(app, "shop", "order.placed.now", "all") == "all"
    assert queue_named(app, "shop", "order.placed.now", "x") == "placed"
    assert queue_named(app, "shop", "order.paid", "x") == "all"
    assert queue_named(app, "elsewhere", "key", "x") == "key"
