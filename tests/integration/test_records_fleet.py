"""Which workers live, by what they say in the records' Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from taskyard.records import GONE_S, Fleet, Member, left_by_dead, lives
from taskyard.settings import Settings


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.need_redis_url()) as made:
        yield made


@pytest.fixture
def fleet(settings: Settings, client: redis.Redis) -> Fleet:
    return Fleet(client, settings.namespace)


def silence(client: redis.Redis, fleet: Fleet, member: Member, for_s: float) -> None:
    us, _, text = client.hget(fleet.key, member.instance).partition(b" ")
    client.hset(fleet.key, member.instance, str(int(us) - int(for_s * 1e6)).encode() + b" " + text)


def test_what_a_worker_says_is_read_as_it_was_said(fleet: Fleet) -> None:
    said = Member("shop@a", ("orders",), "s:unacked", "s:index", 77.5, own=True, returns=True)
    joined = fleet.join(said, 3)
    now_us, [read] = fleet.read()
    assert (read.worker, read.queues, read.unacked) == ("shop@a", ("orders",), "s:unacked")
    assert (read.index, read.visibility_timeout_s) == ("s:index", 77.5)
    assert (read.own, read.returns, read.instance) == (True, True, joined.instance)
    assert read.started_us == joined.started_us
    assert 3 <= (now_us - read.started_us) / 1e6 < 30
    assert read.alive(now_us)


def test_one_that_is_silent_is_gone_and_one_that_left_is_forgotten(
    fleet: Fleet, client: redis.Redis
) -> None:
    silent, left = fleet.join(Member("a"), 0), fleet.join(Member("b"), 0)
    silence(client, fleet, silent, GONE_S + 1)
    fleet.leave(left)
    now_us, members = fleet.read()
    assert [(member.worker, member.alive(now_us)) for member in members] == [("a", False)]


def test_a_successor_of_the_same_name_is_not_the_worker_that_is_gone(
    fleet: Fleet, client: redis.Redis
) -> None:
    first = fleet.join(Member("a"), 10)
    silence(client, fleet, first, GONE_S + 1)
    fleet.join(Member("a"), 0)
    now_us, members = fleet.read()
    assert not lives(members, "a", first.started_us + 1, now_us)
    assert lives(members, "a", now_us, now_us)


def test_what_only_a_dead_worker_said_it_held_is_left_by_it(
    fleet: Fleet, client: redis.Redis
) -> None:
    dead = fleet.join(Member("a", held=("1", "2", "3")), 0)
    fleet.join(Member("b", held=("3", "4")), 0)
    silence(client, fleet, dead, GONE_S + 1)
    now_us, members = fleet.read()
    assert left_by_dead(members, now_us) == {"1", "2"}


def test_an_attempt_of_a_worker_that_nobody_knows_has_nobody_who_runs_it(fleet: Fleet) -> None:
    fleet.join(Member("a"), 10)
    now_us, members = fleet.read()
    assert not lives(members, "b", now_us, now_us)


def test_what_was_silent_for_an_hour_is_forgotten_and_what_is_no_heartbeat_passed_over(
    fleet: Fleet, client: redis.Redis
) -> None:
    old, recent = fleet.join(Member("a"), 0), fleet.join(Member("b"), 0)
    silence(client, fleet, old, 3700)
    silence(client, fleet, recent, 3500)
    client.hset(fleet.key, "odd", "no heartbeat")
    client.hset(fleet.key, "newer", "1 {}")
    fleet.forget_old()
    assert [member.worker for member in fleet.read()[1]] == ["b"]
