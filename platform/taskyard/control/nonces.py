"""Used nonces: each nonce belongs to one message until no receiver accepts its credential."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from taskyard.access.credential_faults import Fault, refusal
from taskyard.database.tables import NONCES

__all__ = ["bind_nonce", "drop_expired", "first_denial"]


def bind_nonce(connection: Connection, nonce: str, message_id: str, expires_at: datetime) -> None:
    """Bind the nonce to this message in the caller's transaction.

    A nonce that is already bound to this message is accepted. Raises `CredentialRefused` if the
    nonce belongs to another message.
    """
    made = insert(NONCES).values(nonce=nonce, message_id=message_id, expires_at=expires_at)
    connection.execute(made.on_conflict_do_nothing(index_elements=[NONCES.c.nonce]))
    owner = connection.scalar(select(NONCES.c.message_id).where(NONCES.c.nonce == nonce))
    if owner != message_id:
        raise refusal(Fault.NONCE_USED)


def first_denial(connection: Connection, message_id: str, expires_at: datetime) -> bool:
    """Return whether this is the message's first denial, not a repeat after a worker's death."""
    mark = sha256(f"denied:{message_id}".encode()).hexdigest()
    made = insert(NONCES).values(nonce=mark, message_id=message_id, expires_at=expires_at)
    done = connection.execute(made.on_conflict_do_nothing(index_elements=[NONCES.c.nonce]))
    return done.rowcount > 0


def drop_expired(connection: Connection) -> int:
    """Delete nonces whose credentials no receiver accepts any more; return how many."""
    gone = delete(NONCES).where(NONCES.c.expires_at < func.clock_timestamp())
    return connection.execute(gone).rowcount
