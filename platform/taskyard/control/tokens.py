"""Operators' tokens: create, rotate and revoke, each an audited verb; and list.

A secret is only in the answer of `create` and `rotate`; the database has its hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, Select, func, insert, literal, select, update

from taskyard.access import Action, Identity, Token
from taskyard.access.token_text import TOKEN_ID
from taskyard.audit import Outcome
from taskyard.control.operator_reasons import check_reason
from taskyard.control.operator_verb import VerbCall, audited
from taskyard.control.rights import Rights, check_grantable, check_subject, identity_of
from taskyard.database.tables import TOKENS
from taskyard.errors import InvalidRights, NotFound, Refused

__all__ = [
    "DEFAULT_LIFETIME",
    "DEFAULT_OVERLAP",
    "LONGEST_LIFETIME",
    "LONGEST_OVERLAP",
    "IssuedToken",
    "TokenInfo",
    "TokenState",
    "create",
    "list_tokens",
    "revoke",
    "rotate",
]

DEFAULT_LIFETIME: Final = timedelta(days=90)
# A token that is never renewed is forgotten: after a year it is unclear who has it.
LONGEST_LIFETIME: Final = timedelta(days=366)
DEFAULT_OVERLAP: Final = timedelta(hours=1)
LONGEST_OVERLAP: Final = timedelta(days=7)
_NOW: Final = func.clock_timestamp()
# A role that only reads has no right to the others.
_SHOWN: Final[list[Any]] = [c for c in TOKENS.c if not c.name.endswith("_sha256")]


class TokenState(StrEnum):
    """The state of a token: whether the token identifies its bearer."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """The facts about a token that may be shown.

    `previous_until` is when the previous secret ends.
    """

    id: str
    subject: str
    role: str
    queues: tuple[str, ...] | None
    domains: tuple[str, ...] | None
    granted: tuple[str, ...]
    state: TokenState
    created_at: datetime
    created_by: str
    expires_at: datetime
    previous_until: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token whose secret is known now and cannot be read again."""

    token: Token = field(repr=False)
    info: TokenInfo


def create(
    engine: Engine,
    subject: str,
    rights: Rights,
    *,
    identity: Identity,
    reason: str | None,
    lifetime: timedelta = DEFAULT_LIFETIME,
    on_behalf_of: str | None = None,
) -> IssuedToken:
    """Create a token for `subject`, with rights that do not exceed those of `identity`.

    Raises `NotPermitted`, `InvalidRights`, `InvalidReason`; each of them is audited.
    """
    call = VerbCall(Action.CREATE_TOKEN, identity, reason, on_behalf_of)
    with audited(engine, call):
        call.permit()
        call.reason = check_reason(reason)
        check_subject(subject)
        check_grantable(identity, rights)
        _check_span("a token's lifetime", lifetime, LONGEST_LIFETIME)
        token = Token.new()
        with engine.begin() as connection:
            row = {
                "id": token.id,
                "subject": subject,
                **rights.columns(),
                "secret_sha256": token.digest(),
                "lifetime": lifetime,
                "created_by": identity.subject,
                "expires_at": _NOW + literal(lifetime, TOKENS.c.lifetime.type),
            }
            made = connection.execute(insert(TOKENS).values(row).returning(TOKENS, _now())).one()
            call.write(connection, Outcome.APPLIED, _detail(made))
        return IssuedToken(token, _info(made))


def rotate(
    engine: Engine,
    token_id: str,
    *,
    identity: Identity,
    reason: str | None,
    lifetime: timedelta | None = None,
    overlap: timedelta = DEFAULT_OVERLAP,
    on_behalf_of: str | None = None,
) -> IssuedToken:
    """Give a token a new secret; the present secret is accepted for `overlap` more.

    The token is valid again for its original lifetime, or for `lifetime`. A secret that an earlier
    rotation replaced ends at once. Raises `NotPermitted`, `NotFound`, and `Refused` for a token
    that was revoked or has expired; each of them is audited.
    """
    call = VerbCall(Action.ROTATE_TOKEN, identity, reason, on_behalf_of)
    with audited(engine, call):
        call.permit()
        call.reason = check_reason(reason)
        _check_span("the overlap", overlap, LONGEST_OVERLAP, least=timedelta())
        if lifetime is not None:
            _check_span("a token's lifetime", lifetime, LONGEST_LIFETIME)
        with engine.begin() as connection:
            row = _lock(connection, token_id)
            _check_active(row)
            check_grantable(identity, _rights(row))
            token = Token(row["id"], "").with_new_secret()
            span = row["lifetime"] if lifetime is None else lifetime
            change = {
                "secret_sha256": token.digest(),
                "previous_sha256": TOKENS.c.secret_sha256,
                "previous_until": func.least(
                    _NOW + literal(overlap, TOKENS.c.lifetime.type), TOKENS.c.expires_at
                ),
                "lifetime": span,
                "expires_at": _NOW + literal(span, TOKENS.c.lifetime.type),
            }
            changed = _update(connection, row["id"], change)
            call.write(connection, Outcome.APPLIED, _detail(changed))
        return IssuedToken(token, _info(changed))


def revoke(
    engine: Engine,
    token_id: str,
    *,
    identity: Identity,
    reason: str | None,
    on_behalf_of: str | None = None,
) -> TokenInfo:
    """End a token at once, with all its secrets.

    Raises `NotPermitted`, `NotFound`, and `Refused` for a token that was revoked before; each of
    them is audited.
    """
    call = VerbCall(Action.REVOKE_TOKEN, identity, reason, on_behalf_of)
    with audited(engine, call):
        call.permit()
        call.reason = check_reason(reason)
        with engine.begin() as connection:
            row = _lock(connection, token_id)
            _check_not_revoked(row)
            change = {"revoked_at": _NOW, "revoked_by": identity.subject}
            changed = _update(connection, row["id"], change)
            call.write(connection, Outcome.APPLIED, _detail(changed))
        return _info(changed)


def list_tokens(
    engine: Engine, *, subject: str | None = None, identity: Identity | None = None
) -> tuple[TokenInfo, ...]:
    """Return every token, newest first, only of `subject` if given; without secrets.

    An `identity` with bounds sees its own.
    """
    query: Select[Any] = select(*_SHOWN, _now()).order_by(TOKENS.c.created_at.desc(), TOKENS.c.id)
    if subject is not None:
        query = query.where(TOKENS.c.subject == subject)
    with engine.connect() as connection:
        found = [_info(row) for row in connection.execute(query)]
    return tuple(info for info in found if identity is None or identity.sees_subject(info.subject))


def _now() -> Any:
    return _NOW.label("now")


def _lock(connection: Connection, token_id: str) -> Mapping[str, Any]:
    """Return a token's row, locked; the text of `NotFound` does not repeat a secret."""
    if TOKEN_ID.fullmatch(token_id) is None:
        raise NotFound(
            "that is not a token's id: expected 12 hexadecimal digits. See: taskyard tokens list"
        )
    query = select(TOKENS, _now()).where(TOKENS.c.id == token_id).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no token {token_id}. See: taskyard tokens list")
    return dict(row)


def _update(connection: Connection, token_id: str, change: Mapping[str, Any]) -> Row[Any]:
    statement = update(TOKENS).where(TOKENS.c.id == token_id).values(change)
    return connection.execute(statement.returning(TOKENS, _now())).one()


def _check_active(row: Mapping[str, Any]) -> None:
    _check_not_revoked(row)
    if row["expires_at"] <= row["now"]:
        raise Refused(
            f"the token {row['id']} expired at {row['expires_at']:%Y-%m-%d %H:%M:%S} UTC and "
            "cannot be rotated. Create another: taskyard tokens create"
        )


def _check_not_revoked(row: Mapping[str, Any]) -> None:
    if row["revoked_at"] is not None:
        raise Refused(
            f"the token {row['id']} was revoked at {row['revoked_at']:%Y-%m-%d %H:%M:%S} UTC by "
            f"{row['revoked_by']}"
        )


def _check_span(
    what: str, span: timedelta, longest: timedelta, least: timedelta = timedelta(seconds=1)
) -> None:
    if not least <= span <= longest:
        raise InvalidRights(
            f"expected {what} above 0 and of at most {longest.days} days, got {_span_text(span)}"
        )


def _span_text(span: timedelta) -> str:
    """Return whole days as days, whole hours as hours, and anything else in seconds."""
    for unit, name in ((timedelta(days=1), "day"), (timedelta(hours=1), "hour")):
        if span and not span % unit:
            return f"{span // unit} {name}{'s' * (span != unit)}"
    return f"{span.total_seconds():g} s"


def _rights(row: Mapping[str, Any]) -> Rights:
    held = identity_of(row, "")
    return Rights(held.role, held.queues, held.domains, held.granted)


def _detail(row: Row[Any]) -> dict[str, object]:
    """Return the details of a token for the audit log: never a secret or its hash."""
    return {
        "id": row.id,
        "subject": row.subject,
        "role": row.role,
        "queues": row.queues,
        "domains": row.domains,
        "granted": row.granted,
        "expires_at": row.expires_at.isoformat(),
        "previous_until": None if row.previous_until is None else row.previous_until.isoformat(),
    }


def _info(row: Row[Any]) -> TokenInfo:
    return TokenInfo(
        id=row.id,
        subject=row.subject,
        role=row.role,
        queues=None if row.queues is None else tuple(row.queues),
        domains=None if row.domains is None else tuple(row.domains),
        granted=tuple(row.granted),
        state=_state(row),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        previous_until=row.previous_until,
        revoked_at=row.revoked_at,
        revoked_by=row.revoked_by,
        last_used_at=row.last_used_at,
    )


def _state(row: Row[Any]) -> TokenState:
    if row.revoked_at is not None:
        return TokenState.REVOKED
    return TokenState.EXPIRED if row.expires_at <= row.now else TokenState.ACTIVE
