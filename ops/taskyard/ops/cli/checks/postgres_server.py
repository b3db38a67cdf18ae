"""Check Postgres: reachable, in UTF-8, new enough, its schema at head; and what its role may do.

Alone because each server that `check` examines has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final, assert_never

from sqlalchemy import text

from taskyard import audit, database
from taskyard.audit import Unsealed
from taskyard.clock import SYSTEM_CLOCK
from taskyard.database import RoleKind, RoleStatus
from taskyard.ops.cli.checks.finding import Finding
from taskyard.ops.cli.time_text import age, moment

__all__ = ["look_at"]

# Of the sealer's passes: a long transaction, or one relay that takes over from another.
_LATE_SEALS: Final = 12
_ROLES: Final = "taskyard migrate --roles"
_SHOWN: Final = 5


def look_at(url: str) -> Iterator[Finding]:
    """Check the database at `url`; raises what `database.check` raises."""
    with (
        database.opened(url, application_name="taskyard check") as engine,
        engine.connect() as connection,
    ):
        version = connection.scalar(text("SHOW server_version"))
        fault = database.encoding_fault(connection)
    yield Finding.ok("Postgres", f"PostgreSQL {version} answers")
    if fault is not None:
        yield Finding.error("Postgres", fault, "", exit_code=3)
        return  # `migrate` would refuse this database too
    status = database.check(url)
    yield Finding.ok("Postgres", f"the schema is at {status.current}, as expected")
    with (
        database.opened(url, application_name="taskyard check") as engine,
        engine.connect() as connection,
    ):
        role = database.role_status(connection)
        waiting = None if role.lacks else audit.unsealed(connection)
    yield _of_role(role)
    if waiting is not None and waiting.waits_s > _LATE_SEALS * audit.EVERY_S:
        yield _of_unsealed(waiting)


def _of_unsealed(waiting: Unsealed) -> Finding:
    now = SYSTEM_CLOCK.now()
    waits = age(now - timedelta(seconds=waiting.waits_s), now)
    rows = "1 row waits" if waiting.rows == 1 else f"{waiting.rows} rows wait"
    since = "" if waiting.since is None else f", the oldest since {moment(waiting.since)} ({waits})"
    return Finding.warning(
        "audit log",
        f"{rows} for a seal{since}: until a row has one, no change of it can be shown",
        "The relay seals rows every few seconds. Start it: taskyard relay; if it runs, its log "
        "says why it does not seal",
    )


def _some(rights: Sequence[str]) -> str:
    more = len(rights) - _SHOWN
    return ", ".join(rights[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _of_role(role: RoleStatus) -> Finding:
    if role.lacks:
        return Finding.error(
            "Postgres",
            f"the role {role.name} lacks {', '.join(role.lacks)}",
            f"Have the database's administrator run what this prints: {_ROLES}",
            exit_code=3,
        )
    if role.beyond:
        return Finding.warning(
            "Postgres",
            f"the role {role.name} has {_some(role.beyond)}, which it does not need",
            f"Have the database's administrator run what this prints: {_ROLES}; on partitions and "
            "sequences take the right away with REVOKE",
        )
    match role.kind:
        case RoleKind.SUPERUSER:
            return Finding.warning(
                "Postgres",
                f"the role {role.name} is a superuser, so it could change what was audited",
                f"Mirror, relay and operators need a role with fewer rights: {_ROLES}",
            )
        case RoleKind.OWNER:
            said = (
                f"the role {role.name} owns the schema, so it could change what was audited; "
                f"mirror, relay and operators need fewer rights: {_ROLES}"
            )
        case RoleKind.RUNTIME:
            said = f"the role {role.name} has the rights of mirror, relay and operators, no more"
        case RoleKind.READER:
            said = f"the role {role.name} may only read: no mirror, relay or operator can use it"
        case never:
            assert_never(never)
    return Finding.ok("Postgres", said)
