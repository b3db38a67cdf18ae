"""The identity that acts: a token's bearer, this machine's trusted user, or a granted name."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Mapping
from hmac import compare_digest
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select, update

from taskyard import audit
from taskyard.access import Identity, Role, Token
from taskyard.control.rights import identity_of
from taskyard.database.tables import GRANTS, TOKENS
from taskyard.errors import NotPermitted, TokenRefused
from taskyard.settings import Settings
from taskyard.wire.control_characters import STEERING

__all__ = ["granted_identity", "identify", "local_identity", "reader_of", "token_identity"]

_NO_IDENTITY: Final = "no_identity"
# Compared with the secret of an unknown id: it takes the same time and never matches.
_NO_DIGEST: Final = b"\x00" * 32


def identify(engine: Engine, settings: Settings, source: str = "command line") -> Identity:
    """Return the identity that acts: the bearer of `TASKYARD_TOKEN`, or a trusted local user.

    A refused token does not fall back to local trust. Raises `TokenRefused` for a refused token,
    and `NotPermitted` without a token or trust; each error is counted as a denial of `source`.
    """
    try:
        return _verified(engine, settings)
    except NotPermitted as error:
        code = error.code if isinstance(error, TokenRefused) else _NO_IDENTITY
        audit.count_unverified(engine, source, code)
        raise


def reader_of(engine: Engine, settings: Settings, source: str = "command line") -> Identity | None:
    """Return the identity whose bounds limit a read: the bearer of `TASKYARD_TOKEN`, None without.

    Without a token nothing is verified: who has the database's URL can read its tables. Raises
    `TokenRefused`, which is counted as a denial of `source`.
    """
    return None if settings.token is None else identify(engine, settings, source)


def _verified(engine: Engine, settings: Settings) -> Identity:
    if settings.token is not None:
        return token_identity(engine, Token.parse(settings.token.get_secret_value()))
    return local_identity(settings)


def token_identity(engine: Engine, token: Token) -> Identity:
    """Return the identity of the token's bearer and note the use; raises `TokenRefused`.

    Postgres' clock decides about expiry. An unknown id and a wrong secret get the same answer.
    """
    with engine.begin() as connection:
        now = func.clock_timestamp().label("now")
        query = select(TOKENS, now).where(TOKENS.c.id == token.id)
        row = _checked(token, connection.execute(query).mappings().one_or_none())
        _note_use(connection, token.id)
        return identity_of(row, f"token:{token.id}")


def _checked(token: Token, row: Mapping[Any, Any] | None) -> Mapping[Any, Any]:
    """Return `row` if the secret belongs to it and is still valid, else raise `TokenRefused`."""
    current, previous = _digests(row)
    given = token.digest()
    # Both are always compared, so that the time of the answer shows nothing.
    is_current, is_previous = compare_digest(given, current), compare_digest(given, previous)
    if row is None or not (is_current or is_previous):
        raise TokenRefused(
            "unknown",
            "the token is not in this database, or its secret is wrong. Compare its id with: "
            "taskyard tokens list. If it is lost, create another: taskyard tokens create",
        )
    refusal = _ended(row, is_current=is_current)
    if refusal is not None:
        raise refusal
    return row


def _ended(row: Mapping[str, Any], *, is_current: bool) -> TokenRefused | None:
    """Return why a token with the right secret is no longer valid."""
    if row["revoked_at"] is not None:
        return TokenRefused(
            "revoked",
            f"the token {row['id']} was revoked at {_time(row['revoked_at'])}. An admin can "
            "create another: taskyard tokens create",
        )
    if row["expires_at"] <= row["now"]:
        return TokenRefused(
            "expired",
            f"the token {row['id']} expired at {_time(row['expires_at'])}. An admin can create "
            "another: taskyard tokens create",
        )
    if not is_current and row["previous_until"] <= row["now"]:
        return TokenRefused(
            "rotated",
            f"the secret of the token {row['id']} was replaced, and was valid until "
            f"{_time(row['previous_until'])}. Use the newer one, or get another: "
            "taskyard tokens rotate",
        )
    return None


def _digests(row: Mapping[str, Any] | None) -> tuple[bytes, bytes]:
    """Return the digests of the secret and of the previous one."""
    if row is None:
        return _NO_DIGEST, _NO_DIGEST
    previous = row["previous_sha256"]
    return bytes(row["secret_sha256"]), _NO_DIGEST if previous is None else bytes(previous)


def _note_use(connection: Connection, token_id: str) -> None:
    """Store the minute of the last use; a token in constant use costs one write a minute."""
    minute = func.date_trunc("minute", func.clock_timestamp())
    is_older = TOKENS.c.last_used_at.is_(None) | (TOKENS.c.last_used_at < minute)
    change = update(TOKENS).where(TOKENS.c.id == token_id, is_older).values(last_used_at=minute)
    connection.execute(change)


def granted_identity(engine: Engine, subject: str, via: str) -> Identity:
    """Return the rights of a person who signed in through another system: Flower, a proxy.

    The caller must have verified `subject`; `via` names the system. Raises `NotPermitted` if the
    subject has no grant.
    """
    row: Mapping[Any, Any] | None = None
    if not STEERING.search(subject):  # no grant has such a name, and Postgres refuses a NUL
        with engine.connect() as connection:
            query = select(GRANTS).where(GRANTS.c.subject == subject)
            row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotPermitted(
            f"{subject[:200]!r} is signed in ({via}) and has no rights here. An admin gives some: "
            "taskyard users grant"
        )
    return identity_of(row, via)


def local_identity(settings: Settings) -> Identity:
    """Return the user of this machine as an admin, if `trust_local` allows it.

    Raises `NotPermitted`, which says what to set. The name comes from the process's user id, since
    a variable such as USER can contain anything.
    """
    if not settings.trust_local:
        raise NotPermitted(
            "there is no verified identity. Set TASKYARD_TOKEN to a token that an admin created "
            "for you; or, on a machine whose users you trust, set TASKYARD_TRUST_LOCAL=1: actions "
            "are "
            "then audited as local:<user>@<host>. For the servers that run on this machine, run: "
            'eval "$(taskyard env --export)"'
        )
    return Identity(f"local:{_user()}@{socket.gethostname()}", via="local", role=Role.ADMIN)


def _user() -> str:
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run under an id without a name
        return str(uid)


def _time(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
