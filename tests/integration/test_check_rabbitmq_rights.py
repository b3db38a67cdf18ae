"""`taskyard check` names what the user of a RabbitMQ may not do, without doing any of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from amqp.exceptions import NotFound

from servers import Servers
from support.worker import Worker
from support.yard import catalogue, fresh_settings
from taskyard.broker import connection
from taskyard.client import Taskyard
from taskyard.deadletters import exchange, mirror_queue
from taskyard.ops.cli.checks.finding import Finding, Level
from taskyard.ops.cli.checks.rabbitmq_rights import look_at_rights
from taskyard.queues import look_at
from taskyard.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "access.md"
USER = "checked"
ALL = ".*"


def documented() -> dict[str, list[str]]:
    """The three patterns of each user on the page."""
    block = re.compile(
        r"^```text\n(rabbitmqctl set_permissions .*?)^```$", re.MULTILINE | re.DOTALL
    )
    words = [shlex.split(text) for text in block.findall(PAGE.read_text("utf-8"))]
    return {command[4]: command[5:] for command in words}


@pytest.fixture(scope="module")
def url(servers: Servers) -> Iterator[str]:
    """Of a user of this module's own, who may do nothing yet."""
    guest = servers.rabbitmq_url()
    servers.rabbitmq.ctl("add_user", USER, "pw")
    yield guest.replace("guest:guest@", f"{USER}:pw@")
    servers.rabbitmq.ctl("delete_user", USER)


@pytest.fixture
def settings(servers: Servers, url: str) -> Settings:
    return fresh_settings(servers.redis_url(), broker_url=url)


def allow(servers: Servers, configure: str = ALL, write: str = ALL, read: str = ALL) -> None:
    servers.rabbitmq.ctl("set_permissions", USER, configure, write, read)


def found(settings: Settings) -> Finding:
    with connection(settings) as broker:
        broker.connect()
        (finding,) = look_at_rights(broker, settings)
    return finding


def test_a_user_who_may_do_all_lacks_nothing_and_nothing_is_left_behind(
    servers: Servers, settings: Settings
) -> None:
    allow(servers)
    assert found(settings).detail == f"user {USER} may configure, write and read what it needs"
    with connection(settings) as broker:
        for queue in (settings.broker_name("exec"), mirror_queue(settings).name):
            assert look_at(broker.connection, queue) is None
        with pytest.raises(NotFound):
            broker.channel().exchange_declare(exchange(settings).name, "topic", passive=True)


def test_each_missing_right_is_named_with_its_queue_or_exchange(
    servers: Servers, settings: Settings
) -> None:
    work, letters = settings.broker_name("exec"), exchange(settings).name
    mirror = mirror_queue(settings).name
    allow(servers, but(work), but(letters), but(mirror))
    finding = found(settings)
    assert (finding.level, finding.exit_code) == (Level.ERROR, 4)
    assert finding.detail == (
        f"user {USER} may not configure {work}; read {mirror}; write {letters}"
    )


def but(name: str) -> str:
    """Everything but one name."""
    return f"^(?!{re.escape(name)}$)"


def test_a_user_who_may_do_nothing_is_told_all_that_can_be_told(
    servers: Servers, settings: Settings
) -> None:
    allow(servers, "^$", "^$", "^$")
    detail = found(settings).detail
    assert f"configure {settings.broker_name('plan')}" in detail
    assert "amq.default" in detail


@pytest.mark.parametrize("namespace", ["acme", "taskyard"])
def test_the_documented_user_can_run_jobs(
    servers: Servers, settings: Settings, tmp_path: Path, namespace: str
) -> None:
    confined = settings.model_copy(update={"namespace": namespace})
    allow(servers, *documented()[namespace])
    assert found(confined).level is Level.OK
    with (
        Worker(confined, tmp_path, queues=("exec",), alone=False).launch() as worker,
        Taskyard(confined, catalogue()) as yard,
    ):
        worker.await_log(" ready.")
        assert yard.enqueue("exec_act", {"value": 7}).result(timeout=40) == 7
        late = yard.enqueue("exec_act", {"value": 8}, countdown=1.5)
        assert late.result(timeout=40) == 8, worker.log
        assert "ACCESS_REFUSED" not in worker.log
