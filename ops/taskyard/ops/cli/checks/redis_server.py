"""Check Redis or Valkey: reachable, new enough, no cluster, no eviction, safe to restart."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from taskyard.ops.cli.checks.finding import Finding
from taskyard.ops.cli.checks.redis_rights import look_at_rights
from taskyard.ops.cli.checks.required_redis_commands import Need
from taskyard.store import connect, reachable

__all__ = ["judge_mode", "judge_version", "look_at"]

_MINIMUM: Final = {"Redis": (6, 2), "Valkey": (7, 2)}


def look_at(subject: str, url: str, variable: str, needs: Iterable[Need]) -> Iterator[Finding]:
    """Check the server at `url`, which `variable` names, and its user."""
    with connect(url, retries=0, variable=variable) as client:
        with reachable(url, variable=variable):
            answered, facts = _facts(client)
        yield judge_version(subject, facts)
        yield judge_mode(subject, facts, variable)
        if answered:
            yield _eviction(subject, facts, client)
            yield _persistence(subject, facts, client)
        else:
            yield Finding.warning(
                subject,
                "its user may not run INFO, so it is unknown whether low memory or a restart "
                "loses jobs",
                "Allow it (ACL SETUSER name +info), or ask the server's administrator for "
                "maxmemory-policy noeviction and appendonly yes.",
            )
        yield from look_at_rights(subject, client, needs)


def _facts(client: redis.Redis) -> tuple[bool, Mapping[str, Any]]:
    """Return whether INFO may be run, and its facts; else the facts of the server's greeting."""
    try:
        return True, client.info()
    except NoPermissionError:
        hello: Any = client.execute_command("HELLO")  # type: ignore[no-untyped-call]
    pairs = {_text(name): _text(value) for name, value in _pairs(hello)}
    product = "valkey" if pairs.get("server") == "valkey" else "redis"
    mode, role = pairs.get("mode", ""), pairs.get("role", "master")
    return False, {f"{product}_version": pairs.get("version"), "redis_mode": mode, "role": role}


def _pairs(hello: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(hello, dict):
        return hello.items()
    return zip(hello[::2], hello[1::2], strict=True)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def judge_version(subject: str, facts: Mapping[str, Any]) -> Finding:
    """Check the product's version."""
    product = "Valkey" if "valkey_version" in facts else "Redis"
    version = str(facts.get("valkey_version") or facts.get("redis_version") or "")
    least = _MINIMUM[product]
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < least:
        wanted = ", ".join(f"{name} {major}.{minor}" for name, (major, minor) in _MINIMUM.items())
        return Finding.error(
            subject, f"{product} {version or '(no version)'} is too old", f"Upgrade to: {wanted}."
        )
    return Finding.ok(subject, f"{product} {version} answers")


def judge_mode(subject: str, facts: Mapping[str, Any], variable: str) -> Finding:
    """Check that the server is one primary, no replica and no cluster."""
    if facts.get("cluster_enabled") or facts.get("redis_mode") == "cluster":
        return Finding.error(
            subject,
            "it is a cluster, whose scripts cannot reach two keys of different slots",
            f"Set {variable} to one primary (with Sentinel for failover). For more load than one "
            f"primary can take, use several namespaces.",
        )
    role = str(facts.get("role", "master"))
    if role != "master":
        return Finding.error(
            subject, "it is a replica and takes no writes", f"Set {variable} to the primary."
        )
    return Finding.ok(subject, "one primary, no cluster")


def _eviction(subject: str, facts: Mapping[str, Any], client: redis.Redis) -> Finding:
    policy = str(facts.get("maxmemory_policy", "unknown"))
    if policy != "noeviction":
        return Finding.error(
            subject,
            f"maxmemory-policy is {policy}: when memory is low, the server deletes jobs without "
            f"an error",
            f"Run: {_cli(client)} CONFIG SET maxmemory-policy noeviction",
        )
    return Finding.ok(subject, "maxmemory-policy is noeviction")


def _persistence(subject: str, facts: Mapping[str, Any], client: redis.Redis) -> Finding:
    if facts.get("aof_enabled"):
        return Finding.ok(subject, "append-only file is on")
    try:
        snapshots = str(client.config_get("save").get("save", ""))
    except (ResponseError, RedisError):
        return Finding.warning(
            subject,
            "append-only file is off; snapshots are unknown, since the server does not show its "
            "configuration",
            "Ask the server's administrator; without persistence a restart loses every job.",
        )
    remedy = f"Run: {_cli(client)} CONFIG SET appendonly yes"
    if snapshots:
        return Finding.warning(
            subject,
            f"append-only file is off; with snapshots ({snapshots}) a restart loses the "
            f"last minutes",
            remedy,
        )
    return Finding.warning(subject, "no persistence: a restart loses every job", remedy)


def _cli(client: redis.Redis) -> str:
    """Return the command line client's call for this server, with its port if that is unusual."""
    where = client.get_connection_kwargs()
    if "host" not in where:
        return "redis-cli"
    return shlex.join(["redis-cli", "-h", str(where["host"]), "-p", str(where.get("port", 6379))])
