"""Rights of people who sign in elsewhere: no row, no right."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from sqlalchemy import Engine, select

from taskyard.access import Action, Identity, Role
from taskyard.control import granted_identity, users
from taskyard.control.rights import Rights
from taskyard.database.tables import AUDIT
from taskyard.errors import InvalidRights, NotFound, NotPermitted

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

ROOT = Identity("root@example.com", via="test", role=Role.ADMIN)
WHY = "On call for the payments team from June, ticket 12345"


@pytest.fixture
def name() -> str:
    return f"ada-{uuid.uuid4().hex[:8]}@example.com"


def give(database: Engine, name: str, rights: Rights, **options: Any) -> users.UserGrant:
    return users.grant(database, name, rights, **{"identity": ROOT, "reason": WHY, **options})


def entries(database: Engine, name: str) -> list[dict[str, Any]]:
    query = select(AUDIT).where(AUDIT.c.detail["subject"].astext == name).order_by(AUDIT.c.id)
    with database.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def test_without_a_row_there_is_no_right(database: Engine, name: str) -> None:
    words = rf"'{name}' is signed in \(flower\) and has no rights here.*taskyard users grant"
    with pytest.raises(NotPermitted, match=words):
        granted_identity(database, name, "flower")


def test_a_granted_name_has_its_rights_and_loses_them(database: Engine, name: str) -> None:
    rights = Rights(
        Role.OPERATOR, frozenset({"exec"}), frozenset({"shop"}), frozenset({Action.READ_PAYLOAD})
    )
    give(database, name, rights)
    assert granted_identity(database, name, "flower") == Identity(
        name,
        via="flower",
        role=Role.OPERATOR,
        queues=frozenset({"exec"}),
        domains=frozenset({"shop"}),
        granted=frozenset({Action.READ_PAYLOAD}),
    )
    users.revoke(database, name, identity=ROOT, reason=WHY)
    with pytest.raises(NotPermitted, match="has no rights here"):
        granted_identity(database, name, "flower")
    with pytest.raises(NotFound, match=r"has no rights\. See: taskyard users list"):
        users.revoke(database, name, identity=ROOT, reason=WHY)


def test_names_are_compared_letter_by_letter(database: Engine, name: str) -> None:
    give(database, name, Rights(Role.ADMIN))
    for other in (name.upper(), f" {name}", f"{name}\x00", f"{name}%", name.replace("@", "_")):
        with pytest.raises(NotPermitted):
            granted_identity(database, other, "flower")


def test_a_second_grant_replaces_the_first_and_the_audit_has_both(
    database: Engine, name: str
) -> None:
    give(database, name, Rights(Role.ADMIN))
    give(database, name, Rights(Role.VIEWER, frozenset({"exec"})))
    found = granted_identity(database, name, "flower")
    assert (found.role, found.queues) == (Role.VIEWER, frozenset({"exec"}))
    first, second = entries(database, name)
    assert (first["action_type"], first["outcome"]) == ("grant_user", "applied")
    assert (first["detail"]["before"], first["detail"]["role"]) == (None, "admin")
    assert second["detail"]["before"]["role"] == "admin"
    assert second["detail"]["queues"] == ["exec"]
    users.revoke(database, name, identity=ROOT, reason=WHY)
    assert entries(database, name)[-1]["action_type"] == "revoke_user"


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_only_an_admin_gives_or_takes_rights(database: Engine, name: str, role: Role) -> None:
    low = Identity("low@example.com", via="test", role=role)
    with pytest.raises(NotPermitted, match="may not do grant_user"):
        give(database, name, Rights(Role.VIEWER), identity=low)
    give(database, name, Rights(Role.VIEWER))
    with pytest.raises(NotPermitted, match="may not do revoke_user"):
        users.revoke(database, name, identity=low, reason=WHY)
    granted_identity(database, name, "flower")


@pytest.mark.parametrize("wrong", ["local:root@host", "two words", ""])
def test_a_name_that_misleads_is_refused(database: Engine, wrong: str) -> None:
    with pytest.raises(InvalidRights):
        give(database, wrong, Rights(Role.VIEWER))


@pytest.mark.parametrize("queue", ["", "a b", "a,b", "a\u202eb", "x" * 201])
def test_a_bound_that_is_no_name_is_refused(database: Engine, name: str, queue: str) -> None:
    with pytest.raises(InvalidRights, match="expected the name of a queue"):
        give(database, name, Rights(Role.VIEWER, frozenset({queue})))


def test_the_list_names_everybody_with_rights(database: Engine, name: str) -> None:
    given = give(database, name, Rights(Role.VIEWER, None, frozenset({"shop"})))
    assert given in users.list_users(database)
    assert (given.domains, given.granted_by) == (("shop",), "root@example.com")
