"""Count denied calls without a verified identity, by minute, source and cause.

Any program that can reach the broker can send any number of such calls, so the audit log has no row
for each of them. The table of counts is limited too: at most `MOST_A_MINUTE` pairs of source and
cause have a row per minute, all other pairs share one row.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select, text

from taskyard.database.tables import UNVERIFIED
from taskyard.wire.control_characters import escaped
from taskyard.wire.redaction import redact_text

__all__ = ["MOST_A_MINUTE", "OTHER", "count_unverified", "list_unverified"]

MOST_A_MINUTE: Final = 100
OTHER: Final = "other"
_SOURCE_LENGTH: Final = 200
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
# Two sessions at once may both take the last place. The time is not ours, so it is brought within
# an hour: a sender who could choose it could fill any number of minutes.
_COUNT: Final = text(
    f"""
    WITH given AS (
        SELECT date_trunc('minute', greatest(least(coalesce(:at, now()), now()),
                   now() - interval '1 hour'), 'UTC') AS minute,
            CAST(:source AS text) AS source, CAST(:why AS text) AS why),
    placed AS (
        SELECT given.*, EXISTS (
                SELECT FROM unverified_denials AS known
                WHERE (known.minute, known.source, known.why)
                    = (given.minute, given.source, given.why))
            OR (SELECT count(*) FROM unverified_denials AS known
                WHERE known.minute = given.minute) < {MOST_A_MINUTE} AS has_place
        FROM given)
    INSERT INTO unverified_denials AS counted (minute, source, why, count)
    SELECT minute, CASE WHEN has_place THEN source ELSE '{OTHER}' END,
        CASE WHEN has_place THEN why ELSE '{OTHER}' END, :count
    FROM placed
    ON CONFLICT (minute, source, why) DO UPDATE SET count = counted.count + excluded.count
    """  # noqa: S608 - constants
)


def count_unverified(
    connection: Connection | Engine,
    source: str,
    why_code: str,
    at: datetime | None = None,
    count: int = 1,
) -> None:
    """Add `count` denials of calls from `source`, such as `broadcast` or a queue's name.

    `why_code` is a code such as `bad_signature`; another text counts as `other`. `at` is when the
    calls were denied, by default now. With an engine the count has its own transaction; with a
    connection it belongs to the caller's. Raises ValueError for a count below 1.
    """
    if count < 1:
        raise ValueError(f"expected a count of at least 1, got {count}")
    values = {
        "at": at,
        "source": redact_text(escaped(source))[:_SOURCE_LENGTH] or OTHER,
        "why": why_code if _CODE.fullmatch(why_code) else OTHER,
        "count": count,
    }
    if isinstance(connection, Engine):
        with connection.begin() as own:
            own.execute(_COUNT, values)
    else:
        connection.execute(_COUNT, values)


def list_unverified(engine: Engine, since: datetime | None, limit: int) -> list[dict[str, Any]]:
    """Return counts since a time by source and cause, with first and last minute, latest first."""
    last = func.max(UNVERIFIED.c.minute).label("last")
    query = (
        select(
            UNVERIFIED.c.source,
            UNVERIFIED.c.why,
            func.sum(UNVERIFIED.c.count).label("count"),
            func.min(UNVERIFIED.c.minute).label("first"),
            last,
        )
        .group_by(UNVERIFIED.c.source, UNVERIFIED.c.why)
        .order_by(last.desc(), UNVERIFIED.c.source, UNVERIFIED.c.why)
        .limit(limit)
    )
    if since is not None:
        query = query.where(UNVERIFIED.c.minute >= func.date_trunc("minute", since))
    with engine.connect() as connection:
        rows = connection.execute(query).mappings()
        return [{**row, "count": int(row["count"])} for row in rows]
