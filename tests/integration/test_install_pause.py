"""Installed apps under pauses and kill switches: what protected and observed tasks obey."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from servers import Servers
from support.held_switches import HeldSwitches
from support.legacy import Legacy
from support.legacy_fixtures import TRANSPORTS, legacy_on
from support.waiting import SOON_S, eventually

pytestmark = pytest.mark.slow

HELD_LOG = "a switch holds queue"
FREE_LOG = "no switch holds queue"


@dataclass
class Shop:
    """The running app, the producer's view of its tasks, and the switches."""

    app: Legacy
    tasks: Any
    switches: HeldSwitches

    @property
    def pause(self) -> str:
        return f"pause queue:{self.app.prefix}.work"

    def await_log(self, text: str, times: int) -> None:
        self.app.processes[0].await_log(text, times)


@pytest.fixture(scope="module", params=TRANSPORTS)
def shop(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    with legacy_on(request.param, servers, tmp_path_factory.mktemp("pause")) as app:
        app.worker()
        with app.producer() as tasks:
            yield Shop(app, tasks, HeldSwitches(app.redis, app.settings.namespace))


def test_protected_tasks_of_a_paused_queue_wait_and_run_once_after_it(shop: Shop) -> None:
    shop.switches.hold(shop.pause)
    # Perhaps before the worker reads the switch: `begin` holds the first ones.
    held = [shop.tasks.once.delay() for _ in range(4)]
    shop.await_log(HELD_LOG, 1)
    assert [shop.app.record(one.id).get("state", "none") for one in held] == ["none"] * 4
    shop.switches.off(shop.pause)
    assert [one.get(timeout=SOON_S) for one in held] == [1, 1, 1, 1]
    for one in held:
        record = shop.app.await_state(one.id, "completed")
        assert int(record.get("deliveries", 0)) == 0
        assert shop.app.events(one.id).count("begin") == 1


def test_observed_tasks_of_a_paused_queue_wait_too(shop: Shop) -> None:
    times = shop.app.processes[0].log.count(HELD_LOG)
    shop.switches.hold(shop.pause)
    shop.await_log(HELD_LOG, times + 1)
    waiting = [shop.tasks.watched.delay(), shop.tasks.left_alone.delay()]
    assert not [one for one in waiting if f"[{one.id}] received" in shop.app.processes[0].log]
    shop.switches.off(shop.pause)
    assert [one.get(timeout=SOON_S) for one in waiting] == [1, 1]


@pytest.mark.parametrize("name", ["type:legacy.once"])
def test_a_kill_switch_on_a_type_holds_protected_tasks_and_no_others(shop: Shop, name: str) -> None:
    shop.switches.hold(f"kill {name}", for_s=5)
    held = shop.tasks.once.delay()
    assert shop.tasks.add.delay(1, 2).get(timeout=SOON_S) == 3
    assert shop.app.record(held.id).get("state", "none") == "none"
    assert held.get(timeout=SOON_S + 30) == 1
    shop.app.await_state(held.id, "completed")


def test_a_kill_switch_on_a_type_does_not_hold_observed_tasks(shop: Shop) -> None:
    shop.switches.hold("kill type:legacy.watched")
    assert shop.tasks.watched.delay().get(timeout=SOON_S) == 1
    shop.switches.off("kill type:legacy.watched")


def test_a_worker_that_starts_during_a_pause_takes_nothing(shop: Shop) -> None:
    shop.switches.hold("kill all")
    held = shop.tasks.once.delay()
    second = shop.app.worker("second")
    assert f"[{held.id}] received" not in second.log
    shop.switches.off("kill all")
    assert held.get(timeout=SOON_S) == 1
    eventually(lambda: FREE_LOG in second.log, "it takes again", why=lambda: second.log)
    second.kill()
