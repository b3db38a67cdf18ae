"""Calls of a script that run ahead of their replies, and what they survive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import ConnectionError as NotConnected

from servers import Servers
from support.proxy import Proxy, through
from taskyard.store import Script, connect
from taskyard.store.pipelined_scripts import PipelinedCalls

# Each call notes its number and answers with it: what is answered twice was called twice.
NOTE = Script("redis.call('RPUSH', KEYS[1], ARGV[1]) return ARGV[1]")
FAULT = Script("if ARGV[1] == '1' then return redis.call('HGET', KEYS[1], 'a') end return ARGV[1]")
LIST = "pipelined:notes"


@pytest.fixture
def client(servers: Servers, proxy: Proxy) -> Iterator[redis.Redis]:
    with connect(through(proxy, servers.valkey_url())) as opened:
        opened.script_flush()
        NOTE.known = FAULT.known = False
        opened.delete(LIST)
        yield opened
        opened.delete(LIST)


def send(calls: PipelinedCalls, *numbers: int) -> None:
    for number in numbers:
        calls.send([LIST], [number])


def replies(calls: PipelinedCalls) -> list[int]:
    return [int(calls.receive()) for _ in range(len(calls))]


def notes(client: redis.Redis) -> list[int]:
    found: Any = client.lrange(LIST, 0, -1)
    return [int(number) for number in found]


def test_replies_come_in_the_order_of_the_calls_though_the_script_was_unknown(
    client: redis.Redis,
) -> None:
    with PipelinedCalls(client, NOTE) as calls:
        send(calls, 1, 2, 3)
        assert len(calls) == 3
        assert int(calls.receive()) == 1
        send(calls, 4)
        assert replies(calls) == [2, 3, 4]
    assert notes(client) == [1, 2, 3, 4]


def test_a_connection_that_is_cut_is_opened_again_and_what_had_no_reply_sent_again(
    client: redis.Redis, proxy: Proxy
) -> None:
    with PipelinedCalls(client, NOTE) as calls:
        send(calls, 1)
        assert replies(calls) == [1]
        send(calls, 2, 3)
        proxy.cut()
        send(calls, 4)
        assert replies(calls) == [2, 3, 4]
    assert [number for number in notes(client) if number == 1] == [1], "it had its reply"
    assert set(notes(client)) == {1, 2, 3, 4}


def test_a_lost_reply_repeats_the_call(client: redis.Redis, proxy: Proxy) -> None:
    proxy.lose_replies(b"EVAL")
    with PipelinedCalls(client, NOTE) as calls:
        send(calls, 1)
        assert replies(calls) == [1]
    assert proxy.lost
    assert notes(client) == [1, 1]


def test_a_server_that_forgets_the_script_in_between_is_told_it_again(client: redis.Redis) -> None:
    with PipelinedCalls(client, NOTE) as calls:
        send(calls, 1)
        assert replies(calls) == [1]
        client.script_flush()
        send(calls, 2, 3)
        assert replies(calls) == [2, 3]
    assert notes(client) == [1, 2, 3]


def test_what_is_sent_at_once_is_answered_in_its_order(client: redis.Redis) -> None:
    with PipelinedCalls(client, NOTE) as calls:
        calls.send_all(([LIST], [number]) for number in range(20))
        assert replies(calls) == list(range(20))
        client.script_flush()
        calls.send_all(([LIST], [number]) for number in range(20, 30))
        assert replies(calls) == list(range(20, 30))
    assert notes(client) == list(range(30))


def test_a_connection_that_stays_lost_is_told_as_such(client: redis.Redis, proxy: Proxy) -> None:
    proxy.lose_replies(b"EVAL", times=1_000)
    with PipelinedCalls(client, NOTE) as calls:
        send(calls, 1)
        with pytest.raises(NotConnected):
            calls.receive()
    proxy.loss = None
    assert notes(client) == [1] * 4, "the client's three repeats"


def test_replies_that_nobody_waits_for_are_never_anothers(client: redis.Redis) -> None:
    with PipelinedCalls(client, NOTE) as calls:
        send(calls, 1, 2, 3)
    assert client.echo("own") == b"own"


def test_a_fault_of_the_script_is_raised_in_its_place_and_no_other(client: redis.Redis) -> None:
    client.rpush(LIST, "no hash")
    with PipelinedCalls(client, FAULT) as calls:
        send(calls, 0, 1, 2)
        assert int(calls.receive()) == 0
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            calls.receive()
        assert int(calls.receive()) == 2
    assert client.echo("own") == b"own"
