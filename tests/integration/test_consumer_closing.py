"""A consumer lets a broken connection go as Celery does: kombu's own Redis transport included."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue
from kombu.common import ignore_errors

from servers import RedisServer
from support.waiting import eventually
from support.worker import gone
from taskyard.engine.broker_reconnect import close_in_two_steps


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    started = RedisServer(tmp_path / "redis")
    started.start()
    yield started
    started.stop()


def consuming(connection: Connection) -> Any:
    """The default channel of a consumer that holds a message and has a pop on its way.

    Beside it stands remote control's, whose queue is deleted when it closes.
    """
    with connection.SimpleQueue("work") as queue:
        queue.put({"n": 1})
    channel = connection.default_channel
    assert channel.basic_get("work") is not None
    channel.basic_consume("work", False, print, "tag")
    # As the event loop registers the connection that pops.
    channel.client.connection = channel.client.connection_pool.get_connection()
    box = connection.channel()
    Queue("box", Exchange("box", type="fanout"), auto_delete=True)(box).declare()
    box.basic_consume("box", True, print, "control")
    assert box.client
    channel._brpop_start(timeout=30)
    assert channel._in_poll
    return channel


def test_a_channel_of_kombus_whose_pop_is_unanswered_when_redis_dies_closes_without_an_error(
    server: RedisServer,
) -> None:
    connection = Connection(server.url)
    channel = consuming(connection)
    pid = server.pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid), "the server's end")
    close_in_two_steps(connection)
    connection.collect(socket_timeout=2)
    ignore_errors(connection, connection.close)
    assert channel.closed


def test_what_a_channel_of_kombus_holds_goes_back_when_only_its_connection_is_lost(
    server: RedisServer,
) -> None:
    connection = Connection(server.url)
    channel = consuming(connection)
    channel.client.connection.disconnect()
    close_in_two_steps(connection)
    connection.collect(socket_timeout=2)
    ignore_errors(connection, connection.close)
    assert channel.closed
    with Connection(server.url) as fresh, fresh.SimpleQueue("work") as queue:
        assert queue.get(timeout=10).payload == {"n": 1}
