"""`taskyard check` names what the user of a Redis may not do, without doing any of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

import taskyard.records
from servers import Servers
from support.yard import fresh_settings
from taskyard.ops.cli.checks.finding import Finding, Level
from taskyard.ops.cli.checks.redis_rights import lacking
from taskyard.ops.cli.checks.redis_server import look_at
from taskyard.ops.cli.checks.required_redis_commands import Need, of_broker, of_records
from taskyard.settings import Settings

USER = "checked"


@pytest.fixture(params=["redis", "valkey"])
def server(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Redis]:
    """Both products: each has its own words for a refusal."""
    url = servers.redis_url() if request.param == "redis" else servers.valkey_url()
    with Redis.from_url(url) as client:
        yield client
        client.execute_command("ACL", "DELUSER", USER)


@pytest.fixture
def settings(server: Redis) -> Settings:
    where = server.get_connection_kwargs()
    return fresh_settings(f"redis://{USER}:pw@{where['host']}:{where['port']}/0")


def allow(server: Redis, settings: Settings, *words: str) -> None:
    """A user who may do all that docs/access.md lists, but for `words`."""
    space = settings.namespace
    channels = [f"&{space}:*", f"&{space}:/0.{space}.celery.pidbox"]
    channels += [f"&{space}:/0.{space}.celeryev/worker.*"]
    may = ["on", ">pw", "resetkeys", f"~{space}:*", "resetchannels", *channels, "+@all"]
    server.execute_command("ACL", "SETUSER", USER, *may, "-@admin", "-@dangerous", *words)


def needs(settings: Settings) -> list[Need]:
    return [*of_records(settings), *of_broker(settings)]


def findings(settings: Settings) -> list[Finding]:
    return list(look_at("Redis", settings.need_redis_url(), "TASKYARD_REDIS_URL", needs(settings)))


def test_every_need_is_a_command_that_the_server_would_take(
    server: Redis, settings: Settings
) -> None:
    connection: Any = server.connection_pool.get_connection()
    connection.send_command("MULTI")
    connection.read_response()
    for need in needs(settings):
        connection.send_command(*need.words)
        assert connection.read_response() == b"QUEUED", need
    connection.disconnect()
    assert not list(server.scan_iter(f"*{settings.namespace}*"))


def test_every_command_of_a_script_is_a_need(settings: Settings) -> None:
    scripts = [*Path(taskyard.records.__path__[0]).parent.rglob("*.lua")]
    called = re.compile(r"redis\.p?call\('([A-Z]+)'")
    commands = {
        name.lower() for path in scripts for name in called.findall(path.read_text("utf-8"))
    }
    assert {"hset", "zadd", "rpop"} <= commands
    assert commands - {need.command for need in needs(settings)} == set()


def test_the_documented_user_lacks_nothing_and_nothing_is_left_behind(
    server: Redis, settings: Settings
) -> None:
    allow(server, settings, "+info")
    found = findings(settings)
    assert found[-1] == Finding.ok("Redis", f"user {USER} may do what Taskyard needs")
    assert not list(server.scan_iter(f"*{settings.namespace}*"))


def test_a_missing_command_key_and_channel_are_named_with_what_gives_them(
    server: Redis, settings: Settings
) -> None:
    space = settings.namespace
    keys = [f"~{space}:job:*", f"~{space}:lifecycle*", f"~{space}:celery-task-meta-*"]
    keys += [f"~{space}:gate", f"~{space}:letters:*", f"~{space}:places", f"~{space}:delayed*"]
    keys += [f"~{space}:{space}.*", f"~{space}:unacked*", f"~{space}:heartbeats"]
    keys += [f"~{space}:broker", f"~{space}:*pidbox*", f"~{space}:stop*", f"~{space}:broadcast*"]
    keys += [f"~{space}:command:*", f"~{space}:workers", f"~{space}:switches*"]
    channels = ["resetchannels", f"&{space}:*"]
    allow(server, settings, "resetkeys", *keys, *channels, "-script|load", "-xautoclaim")
    found = findings(settings)[-1]
    bindings = f"{space}:_kombu.binding*"
    control = f"{space}:/0.{space}.celery.pidbox"
    gossip = f"{space}:/0.{space}.celeryev/worker.*"
    assert (found.level, found.exit_code) == (Level.ERROR, 4)
    assert found.detail == (
        f"user {USER} may not run script|load, xautoclaim; touch the keys {bindings}; "
        f"use the channels {control}, {gossip}"
    )
    gives = f"+script|load +xautoclaim ~{bindings} &{control} &{gossip}"
    assert found.remedy.startswith(f"Run: ACL SETUSER {USER} {gives}, then ACL SAVE")
    server.execute_command("ACL", "SETUSER", USER, *gives.split())
    assert findings(settings)[-1].level is Level.OK


def test_a_user_without_info_is_checked_all_the_same(server: Redis, settings: Settings) -> None:
    allow(server, settings)
    found = findings(settings)
    assert [finding.level for finding in found] == [Level.OK, Level.OK, Level.WARNING, Level.OK]
    assert "answers" in found[0].detail
    assert "may not run INFO" in found[2].detail


def test_a_user_without_transactions_is_asked_nothing_that_would_be_done(
    server: Redis, settings: Settings
) -> None:
    allow(server, settings, "+info", "-multi")
    found = findings(settings)[-1]
    assert found.detail == f"user {USER} may not run multi"
    assert not list(server.scan_iter(f"*{settings.namespace}*"))


def test_full_memory_is_no_missing_right(server: Redis, settings: Settings) -> None:
    allow(server, settings, "+info")
    server.config_set("maxmemory", 1)
    try:
        with Redis.from_url(settings.need_redis_url()) as its:
            with pytest.raises(ResponseError):
                its.set(f"{settings.namespace}:x", 1)
            assert not lacking(its, needs(settings))
    finally:
        server.config_set("maxmemory", 0)
