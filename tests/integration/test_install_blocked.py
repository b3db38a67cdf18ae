"""A worker starts, and works off its queue, while RabbitMQ blocks publishers."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers import Servers
from support.legacy_fixtures import legacy_on
from support.rabbitmq import memory_alarm
from support.waiting import SOON_S, eventually

# Each starts processes that wait for a broker that does not answer.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("confirm", [True, False], ids=["confirming", "plain"])
@pytest.mark.parametrize("mode", ["observe", "protect"])
def test_a_worker_that_asks_the_others_starts_during_an_alarm_and_says_that_there_is_one(
    mode: str, confirm: bool, servers: Servers, tmp_path: Path
) -> None:
    with legacy_on("rabbitmq", servers, tmp_path, mode) as app:
        app.options["confirm_publish"] = confirm
        with app.producer() as tasks:
            waiting = tasks.add.delay(1, 2)
            with memory_alarm(servers.rabbitmq):
                worker = app.starting("mingling", mode)
                worker.await_log("mingle: all alone")
                worker.await_log("RabbitMQ blocks publishers, because memory or disk space is low")
                assert waiting.get(timeout=SOON_S) == 3
            worker.await_log("RabbitMQ accepts publications again")
            assert tasks.add.delay(3, 4).get(timeout=SOON_S) == 7
            # Remote control has outlived it.
            control = tasks.app.control
            eventually(lambda: control.ping(timeout=2), "an answer to ping", why=app.logs)
