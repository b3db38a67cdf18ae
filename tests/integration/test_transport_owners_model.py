"""Owners against a model: pops, deaths, late pops and sweeps in any order, over two unacked keys.

Two fleets share the heartbeats, and each keeps what is out under its own names, as a mirror and an
app may do. Whatever happens: a message is in its list or held by an owner that some sweep knows,
and once its fleet sweeps, nothing of a dead owner stays out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from kombu import Connection

from servers import Servers
from support.post import OURS, Post
from taskyard.store import Script
from taskyard.transport.owner_descriptions import owner_of
from taskyard.transport.pop_request import Pop

# A property run over a real server.
pytestmark = pytest.mark.slow

SEARCH = settings(
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
# A mutant is to be found, not to be explained.
# The same examples each time: whether a mutant is found is no matter of luck.
QUICK = settings(SEARCH, max_examples=400, phases=[Phase.generate], derandomize=True)
# One of each fleet; those that died before may still have pops under way.
WORKERS = st.integers(0, 1)
SOME = st.integers(1, 3)


class Fleet:
    """One channel, lent to each of its workers in turn: opening one for each takes long."""

    def __init__(self, post: Post, name: str) -> None:
        self.name, self.queue = name, post.queue(name)
        keys = ("unacked_key", "unacked_index_key", "unacked_mutex_key")
        self.keys = {key: f"{post.options[key]}:{name}" for key in keys}
        options = {**post.options, **post.own, **self.keys}
        self.connection = Connection(post.url, transport=OURS, transport_options=options)
        self.channel: Any = self.connection.channel()


@dataclass
class Worker:
    """One owner: its name, the serial number of its next message, and what it was given."""

    fleet: Fleet
    owner: str
    serial: int = 0
    taken: list[Any] = field(default_factory=list)

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """The channel as this worker has it."""
        channel = self.fleet.channel
        channel.ownership.name, channel.pops.serial = self.owner, self.serial
        try:
            yield channel
        finally:
            self.serial = channel.pops.serial


class Owners(RuleBasedStateMachine):
    """A worker of each of two fleets; one that dies is replaced."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.post = Post(url)
        self.fleets = [Fleet(self.post, name) for name in ("app", "mirror")]
        self.sent = self.started = 0
        self.acknowledged: set[int] = set()
        self.dead: list[Worker] = []
        self.workers = [self._start(fleet) for fleet in self.fleets]

    def _start(self, fleet: Fleet) -> Worker:
        self.started += 1
        worker = Worker(fleet, f"host.1.{self.started}")
        with worker.channel() as channel:
            channel.ownership.beat()
        return worker

    def teardown(self) -> None:
        for fleet in self.fleets:
            fleet.channel.qos._delivered.clear()
            fleet.connection.release()
        self.post.close()

    # -- what happens --------------------------------------------------------------------------

    @rule(number=st.integers(0, 1), count=SOME)
    def send(self, number: int, count: int) -> None:
        queue = self.fleets[number].queue
        delivery = {"delivery_info": {"exchange": "", "routing_key": queue}}
        for _ in range(count):
            message = {"body": str(self.sent), "headers": {}, "properties": delivery}
            self.post.redis.lpush(queue, json.dumps(message))
            self.sent += 1

    @rule(number=WORKERS, count=SOME)
    def take(self, number: int, count: int) -> None:
        worker = self.workers[number]
        with worker.channel() as channel:
            for _ in range(count):
                message = channel.basic_get(worker.fleet.queue)
                if message is not None:
                    worker.taken.append(message)

    @rule(number=WORKERS)
    def acknowledge(self, number: int) -> None:
        worker = self.workers[number]
        if worker.taken:
            message = worker.taken.pop()
            worker.fleet.channel.server.acknowledge([message.delivery_tag])
            self.acknowledged.add(json.loads(message.body))

    @rule(number=WORKERS)
    def kill(self, number: int) -> None:
        self.post.silence(self.workers[number].owner)
        self._replace(number)

    def _replace(self, number: int) -> None:
        worker = self.workers[number]
        self.dead.append(worker)
        self.workers[number] = self._start(worker.fleet)

    @rule(number=WORKERS)
    def stand_still(self, number: int) -> None:
        """For so long that the next sweep takes what it holds; it goes on after that."""
        self.post.silence(self.workers[number].owner)

    @rule(number=WORKERS)
    def beat(self, number: int) -> None:
        with self.workers[number].channel() as channel:
            channel.ownership.beat()

    @rule(number=WORKERS)
    def leave(self, number: int) -> None:
        """In order: what it holds goes back first."""
        worker = self.workers[number]
        with worker.channel() as channel:
            for message in worker.taken:
                channel.qos.restore_by_tag(message.delivery_tag)
            channel.ownership.sign_off(channel._create_client())
        self._replace(number)

    @rule(data=st.data())
    def pop_late(self, data: st.DataObject) -> None:
        """What a worker had sent when its connection was lost is executed after its end."""
        if not self.dead:
            return
        worker = data.draw(st.sampled_from(self.dead))
        with worker.channel() as channel, suppress(Empty):
            pop = Pop([(worker.fleet.queue, 0)], worker.serial, 1)
            channel.pops.script(
                channel.server.plain(channel._create_client()), *channel.pops.call(pop)
            )
            channel.pops.serial += 1

    @rule(number=WORKERS, limit=st.sampled_from([1, 2]))
    def sweep(self, number: int, limit: int) -> None:
        self._sweep(self.workers[number].fleet, limit)

    def _sweep(self, fleet: Fleet, limit: int = 100) -> None:
        self.post.redis.delete(fleet.keys["unacked_mutex_key"])
        fleet.channel.qos.restore_visible(num=limit)

    # -- what holds ----------------------------------------------------------------------------

    @invariant()
    def each_message_is_somewhere(self) -> None:
        found = self._waiting() | {number for _, _, number in self._held()}
        assert found | self.acknowledged >= set(range(self.sent))

    @invariant()
    def who_holds_something_is_known_with_the_place_where_it_holds_it(self) -> None:
        owners = self.post.owners()
        for fleet, tag, _ in self._held():
            assert owners[owner_of(tag)].unacked == fleet.keys["unacked_key"]

    @precondition(lambda self: self.sent > 0)
    @rule()
    def all_die_and_each_fleet_sweeps_twice(self) -> None:
        for owner in self.post.owners():
            self.post.silence(owner)
        for number in range(len(self.workers)):
            self._replace(number)
        for fleet in self.fleets * 2:
            self._sweep(fleet)
        assert self._held() == []
        assert self._waiting() | self.acknowledged == set(range(self.sent))
        assert set(self.post.owners()) == {worker.owner for worker in self.workers}

    def _waiting(self) -> set[int]:
        raws = [raw for fleet in self.fleets for raw in self.post.redis.lrange(fleet.queue, 0, -1)]
        return {_number(json.loads(raw)) for raw in raws}

    def _held(self) -> list[tuple[Fleet, str, int]]:
        found = []
        for fleet in self.fleets:
            stored = self.post.redis.hgetall(fleet.keys["unacked_key"])
            found += [(fleet, tag.decode(), _of(raw)) for tag, raw in stored.items()]
        return found


def _of(stored: bytes) -> int:
    return _number(json.loads(stored)[0])


def _number(message: dict[str, Any]) -> int:
    return int(message["body"])


@pytest.fixture(scope="module")
def url(servers: Servers) -> str:
    return servers.valkey_url()


def test_no_order_of_pops_deaths_and_sweeps_strands_a_message(url: str) -> None:
    run_state_machine_as_test(partial(Owners, url), settings=SEARCH)


@pytest.mark.parametrize(
    ("script", "guard", "without"),
    [
        ("sweep", "and holds_here(description)", ""),
        ("sweep", "left[owner] = true", ""),
        ("pop", "'HSETNX', KEYS[3]", "'HSETNX', KEYS[3] .. ':elsewhere'"),
    ],
)
def test_the_model_sees_the_lack_of_each_guard(
    url: str, script: str, guard: str, without: str
) -> None:
    source = Script.of("taskyard.transport", script).source
    assert guard in source
    mutant = Script(source.replace(guard, without))

    class Mutant(Owners):
        def __init__(self, url: str) -> None:
            super().__init__(url)
            for fleet in self.fleets:
                channel = fleet.channel
                {"sweep": channel.ownership, "pop": channel.pops}[script].script = mutant

    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(partial(Mutant, url), settings=QUICK)
