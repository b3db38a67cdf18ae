"""An inbox in memory, for tests of handlers that use `context.once` without a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from taskyard.jobs.attempt_context import OnceGuard

__all__ = ["MemoryInbox", "MemoryTransaction", "guard"]

Step = tuple[str, str]


@dataclass
class MemoryTransaction:
    """A transaction in memory for `context.once`.

    The steps in it are kept when its block ends without an error.
    """

    _done: set[Step]
    _mine: set[Step] = field(default_factory=set)

    def once(self, job_key: str, step: str) -> bool:
        """Return True if this step of this job was not done before, and note it."""
        key = (job_key, step)
        if key in self._done or key in self._mine:
            return False
        self._mine.add(key)
        return True

    def commit(self) -> None:
        """Keep the steps of the transaction."""
        self._done |= self._mine


class MemoryInbox:
    """An inbox in memory that remembers which steps were done.

    `with yard.inbox.begin() as session:` commits at its end and rolls back on any error.
    """

    def __init__(self) -> None:
        self._done: set[Step] = set()

    @contextmanager
    def begin(self) -> Iterator[MemoryTransaction]:
        """Return a new transaction."""
        transaction = MemoryTransaction(self._done)
        yield transaction
        transaction.commit()


def guard(real: OnceGuard | None) -> OnceGuard:
    """Return `context.once` for transactions of this inbox and for SQLAlchemy's sessions."""

    def once(session: object, job_key: str, step: str) -> bool:
        if isinstance(session, MemoryTransaction):
            return session.once(job_key, step)
        if real is None:
            raise TypeError(
                "context.once expected a transaction of yard.inbox or a session "
                f"of SQLAlchemy, got {session!r}"
            )
        return real(session, job_key, step)

    return once
