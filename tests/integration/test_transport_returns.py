"""What a consumer could not give back, it gives back later, and goes on meanwhile."""

from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Exchange, Producer, Queue

from servers import RedisServer

TRANSPORT = "taskyard.transport:Transport"
QUEUE = Queue("returns", Exchange(""), routing_key="returns")


def test_a_read_only_phase_leaves_no_consumer_deaf(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    connection = Connection(server.url, transport=TRANSPORT)
    try:
        got: list[Any] = []
        channel = connection.channel()
        Producer(channel).publish({"a": 1}, routing_key=QUEUE.name, serializer="json")
        with Consumer(channel, [QUEUE], on_message=got.append, prefetch_count=1):
            while not got:
                connection.drain_events(timeout=10)
            client = redis.Redis.from_url(server.url)
            client.replicaof("127.0.0.1", "1")
            with pytest.raises(redis.exceptions.ReadOnlyError):
                got[0].reject(requeue=True)
            client.replicaof("NO", "ONE")
            while len(got) == 1:
                connection.drain_events(timeout=10)
            got[1].ack()
        assert client.hlen("unacked") == 0
        client.close()
    finally:
        connection.release()
        server.stop()


@pytest.mark.parametrize("answer", ["ack", "reject", "requeue"])
def test_an_answer_that_comes_after_its_connection_was_lost_is_no_fault_and_the_message_is_back(
    tmp_path: Path, answer: str
) -> None:
    server = RedisServer(tmp_path)
    server.start()
    connection = Connection(server.url, transport=TRANSPORT)
    try:
        got: list[Any] = []
        channel = connection.channel()
        Producer(channel).publish({"a": 1}, routing_key=QUEUE.name, serializer="json")
        Consumer(channel, [QUEUE], on_message=got.append, prefetch_count=1).consume()
        while not got:
            connection.drain_events(timeout=10)
        # What Celery's consumer does when its connection is lost; the hub's callbacks come later.
        connection.collect()
        getattr(got[0], answer)()
        with Consumer(connection.channel(), [QUEUE], on_message=got.append, prefetch_count=1):
            while len(got) == 1:
                connection.drain_events(timeout=10)
            got[1].ack()
    finally:
        connection.release()
        server.stop()
