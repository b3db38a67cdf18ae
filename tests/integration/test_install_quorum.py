"""An existing app on quorum queues of RabbitMQ: Celery's native delays, no global prefetch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError
from kombu.transport.native_delayed_delivery import level_name

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import legacy_on
from support.rabbitmq import count_messages
from support.waiting import SOON_S, eventually

LEVEL_OF_16_S = 4


class QuorumLegacy(Legacy):
    """The app with quorum queues behind topic exchanges."""

    def environment(self, mode: str | None = None, transport: bool | None = None) -> dict[str, str]:
        return {**super().environment(mode, transport), "LEGACY_QUORUM": "1"}


@dataclass
class Shop:
    """The running app and the producer's view of its tasks."""

    app: Legacy
    tasks: Any


@pytest.fixture(scope="module", params=["observe", "protect"])
def shop(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    mode, folder = request.param, tmp_path_factory.mktemp(request.param)
    with legacy_on("rabbitmq", servers, folder, mode, kind=QuorumLegacy) as app:
        app.worker()
        with app.producer() as tasks:
            yield Shop(app, tasks)


def test_tasks_run_where_no_global_prefetch_is_allowed(shop: Shop) -> None:
    results = [shop.tasks.add.delay(number, 1) for number in range(20)]
    assert [one.get(timeout=SOON_S) for one in results] == list(range(1, 21))
    assert "Global QoS is disabled" in shop.app.processes[0].log


def test_a_countdown_waits_at_the_broker_and_runs_once(shop: Shop) -> None:
    soon = shop.tasks.once.apply_async(countdown=3)
    late = shop.tasks.once.apply_async(countdown=30)
    eventually(
        lambda: count_messages(shop.app.settings, [level_name(LEVEL_OF_16_S)]) > 0,
        "the later one in Celery's level of 16 s",
        why=shop.app.logs,
    )
    assert soon.get(timeout=SOON_S) == 1
    late.revoke()
    if shop.app.mode == "protect":
        assert shop.app.await_state(soon.id, "completed")["state"] == "completed"


def test_a_task_that_asks_for_a_later_retry_is_tried_again(shop: Shop) -> None:
    result = shop.tasks.later.delay()
    assert result.get(timeout=SOON_S) == 1


def test_a_failure_leaves_a_letter(shop: Shop) -> None:
    result = shop.tasks.fail.delay("nothing to see")
    with pytest.raises(ValueError, match="nothing to see"):
        result.get(timeout=SOON_S)
    assert shop.app.await_letter(result.id).error_class == "ValueError"


def test_a_task_whose_process_was_killed_runs_again_where_it_is_protected(shop: Shop) -> None:
    crashed = shop.tasks.crash.delay(1)
    if shop.app.mode == "protect":
        assert crashed.get(timeout=SOON_S) == 2
    else:
        with pytest.raises(WorkerLostError):
            crashed.get(timeout=SOON_S)
