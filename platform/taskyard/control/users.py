"""Rights of people who sign in through another system: grant and revoke, audited; and list.

Flower's login, a proxy or an identity provider verifies a person; a row of this table holds the
person's rights.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from taskyard.access import Action, Identity
from taskyard.audit import Outcome
from taskyard.control.operator_reasons import check_reason
from taskyard.control.operator_verb import VerbCall, audited
from taskyard.control.rights import Rights, check_grantable, check_subject
from taskyard.database.tables import GRANTS
from taskyard.errors import NotFound
from taskyard.wire.redaction import mask_tokens

__all__ = ["UserGrant", "grant", "list_users", "revoke"]


@dataclass(frozen=True, slots=True)
class UserGrant:
    """The rights of a name, and who granted them."""

    subject: str
    role: str
    queues: tuple[str, ...] | None
    domains: tuple[str, ...] | None
    granted: tuple[str, ...]
    granted_at: datetime
    granted_by: str


def grant(
    engine: Engine,
    subject: str,
    rights: Rights,
    *,
    identity: Identity,
    reason: str | None,
    on_behalf_of: str | None = None,
) -> UserGrant:
    """Replace the rights of `subject`; they may not exceed the rights of `identity`.

    Raises `NotPermitted`, `InvalidRights`, `InvalidReason`; each of them is audited.
    """
    call = VerbCall(Action.GRANT_USER, identity, reason, on_behalf_of)
    with audited(engine, call):
        call.permit()
        call.reason = check_reason(reason)
        check_subject(subject)
        check_grantable(identity, rights)
        values = {
            **rights.columns(),
            "granted_at": func.clock_timestamp(),
            "granted_by": identity.subject,
        }
        with engine.begin() as connection:
            before = select(GRANTS).where(GRANTS.c.subject == subject).with_for_update()
            former = connection.execute(before).one_or_none()
            upsert = insert(GRANTS).values(subject=subject, **values)
            change = upsert.on_conflict_do_update(index_elements=["subject"], set_=values)
            row = connection.execute(change.returning(GRANTS)).one()
            detail = _detail(row) | {"before": None if former is None else _detail(former)}
            call.write(connection, Outcome.APPLIED, detail)
        return _shown(row)


def revoke(
    engine: Engine,
    subject: str,
    *,
    identity: Identity,
    reason: str | None,
    on_behalf_of: str | None = None,
) -> UserGrant:
    """Remove all rights of `subject` and return them; the tokens of `subject` stay valid.

    Raises `NotPermitted`, `NotFound`, `InvalidReason`; each of them is audited.
    """
    call = VerbCall(Action.REVOKE_USER, identity, reason, on_behalf_of)
    with audited(engine, call):
        call.permit()
        call.reason = check_reason(reason)
        with engine.begin() as connection:
            gone = delete(GRANTS).where(GRANTS.c.subject == subject).returning(GRANTS)
            row = connection.execute(gone).one_or_none()
            if row is None:
                raise NotFound(
                    f"{mask_tokens(subject)[:200]!r} has no rights. See: taskyard users list"
                )
            call.write(connection, Outcome.APPLIED, _detail(row))
        return _shown(row)


def list_users(engine: Engine, *, identity: Identity | None = None) -> tuple[UserGrant, ...]:
    """Return every name that has rights, in alphabetical order.

    An `identity` with bounds sees its own.
    """
    with engine.connect() as connection:
        rows = connection.execute(select(GRANTS).order_by(GRANTS.c.subject))
        found = [_shown(row) for row in rows]
    return tuple(user for user in found if identity is None or identity.sees_subject(user.subject))


def _detail(row: Row[Any]) -> dict[str, object]:
    return {
        "subject": row.subject,
        "role": row.role,
        "queues": row.queues,
        "domains": row.domains,
        "granted": row.granted,
    }


def _shown(row: Row[Any]) -> UserGrant:
    return UserGrant(
        subject=row.subject,
        role=row.role,
        queues=None if row.queues is None else tuple(row.queues),
        domains=None if row.domains is None else tuple(row.domains),
        granted=tuple(row.granted),
        granted_at=row.granted_at,
        granted_by=row.granted_by,
    )
