"""Dead letters: how many wait for an operator, and whether the mirror keeps up with new ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from taskyard import database
from taskyard.database.postgres_errors import first_line, is_out_of_time
from taskyard.database.tables import LETTERS
from taskyard.errors import InvalidSettings, TaskyardError
from taskyard.inspection.queue_counts import letters_waiting
from taskyard.jobs.letter_states import OPEN
from taskyard.ops.cli.checks.finding import Finding
from taskyard.settings import Settings

__all__ = ["look_at"]

# Millions of letters are counted in less; if it takes longer, the database has another problem.
_COUNT_MS: Final = 2_000


def look_at(settings: Settings) -> Iterator[Finding]:
    """Report how many letters wait in Postgres, and how many have not arrived there yet."""
    yield from _pending(settings)
    yield from _unmirrored(settings)


def _pending(settings: Settings) -> Iterator[Finding]:
    try:
        counts = _count(settings.need_database_url())
    except InvalidSettings:
        return  # another finding reports what is missing or wrong
    except TaskyardError:
        yield _uncounted("Postgres could not be asked", "See the finding about Postgres below.")
    except DBAPIError as error:
        late = is_out_of_time(error.orig)
        why = f"not counted within {_COUNT_MS} ms" if late else first_line(error.orig)
        yield _uncounted(why, "See: taskyard dlq stats")
    else:
        yield _counted(counts)


def _uncounted(why: str, remedy: str) -> Finding:
    return Finding.warning("letters", f"it is unknown how many wait for an operator: {why}", remedy)


def _counted(counts: dict[str, int]) -> Finding:
    if not counts:
        return Finding.ok("letters", "none waits for an operator")
    total = sum(counts.values())
    by_status = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    return Finding.warning(
        "letters",
        f"{total} wait{'s' * (total == 1)} for an operator ({by_status})",
        "See: taskyard dlq list",
    )


def _count(url: str) -> dict[str, int]:
    query = (
        select(LETTERS.c.status, func.count())
        .where(LETTERS.c.status.in_(OPEN))
        .group_by(LETTERS.c.status)
    )
    with (
        database.opened(url, application_name="taskyard check") as engine,
        engine.connect() as connection,
    ):
        connection.execute(text(f"SET LOCAL statement_timeout = {_COUNT_MS}"))
        return {str(status): int(count) for status, count in connection.execute(query)}


def _unmirrored(settings: Settings) -> Iterator[Finding]:
    """Yield findings only for problems: a mirror that keeps up needs no finding."""
    try:
        waiting = letters_waiting(settings)
    except TaskyardError:
        return  # another finding reports the broker
    if waiting is None:
        yield Finding.warning(
            "letters",
            "it is unknown how many wait for the mirror: the broker refuses to show its queue",
            "Ask the broker's administrator for the right to read it.",
        )
    elif waiting > 0:
        yield Finding.warning(
            "letters",
            f"{waiting} wait{'s' * (waiting == 1)} for the mirror, not yet in Postgres",
            "If they still wait later, start a mirror: taskyard mirror",
        )
