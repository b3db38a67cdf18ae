"""Reading a captured message: a right of its own, with a reason, and an audit row before it."""

from __future__ import annotations

import dataclasses
import json
import uuid
from typing import Any

import pytest
from sqlalchemy import Engine, select

from support.letters import make_delivery, make_letter
from support.shell import Shell
from taskyard.access import Action, Identity, Role
from taskyard.control import read_payload
from taskyard.database.tables import AUDIT
from taskyard.errors import InvalidReason, NotFound, NotPermitted
from taskyard.mirror.store_letters import store_letters

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

WHY = "The customer disputes the amount, ticket 12345"
ADMIN = Identity("admin@example.com", via="test", role=Role.ADMIN)
OPERATOR = Identity("ops@example.com", via="test", role=Role.OPERATOR)


def stored(database: Engine, **changes: Any) -> uuid.UUID:
    letter = make_letter(**changes)
    with database.begin() as connection:
        store_letters(connection, [make_delivery(letter)])
    return uuid.UUID(letter.letter_id)


def last_entry(database: Engine) -> dict[str, Any]:
    with database.connect() as connection:
        query = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(1)
        return dict(connection.execute(query).mappings().one())


def read(
    database: Engine, letter: Any, identity: Identity = ADMIN, reason: str | None = WHY
) -> Any:
    return read_payload(database, letter, identity=identity, reason=reason)


def test_the_message_comes_as_it_is_and_the_reading_is_audited(database: Engine) -> None:
    letter = stored(database, job_id="read-1")
    message = read(database, letter)
    assert b"hunter2" in message.body
    entry = last_entry(database)
    assert (entry["action_type"], entry["outcome"]) == ("read_payload", "applied")
    assert (entry["dead_letter_id"], entry["target_request_id"]) == (letter, "read-1")
    assert (entry["operator_identity"], entry["reason"]) == ("admin@example.com", WHY)
    assert "hunter2" not in str(entry)


def test_an_operator_reads_only_where_the_action_is_granted_by_name(database: Engine) -> None:
    letter = stored(database)
    with pytest.raises(NotPermitted, match="needs the role admin or a grant by name"):
        read(database, letter, OPERATOR)
    assert last_entry(database)["outcome"] == "denied"
    granted = dataclasses.replace(OPERATOR, granted=frozenset({Action.READ_PAYLOAD}))
    assert read(database, letter, granted).body


@pytest.mark.parametrize("bound", [{"queues": {"exec"}}, {"domains": {"shop"}}])
def test_a_bound_identity_reads_within_its_bounds_alone(
    database: Engine, bound: dict[str, set[str]]
) -> None:
    bounds: dict[str, Any] = {name: frozenset(names) for name, names in bound.items()}
    someone = dataclasses.replace(ADMIN, **bounds)
    assert read(database, stored(database, queue="exec", domain="shop"), someone)
    with pytest.raises(NotPermitted, match="is bound to"):
        read(database, stored(database, queue="plan", domain="billing"), someone)
    entry = last_entry(database)
    assert (entry["outcome"], entry["action_type"]) == ("denied", "read_payload")


def test_what_names_no_queue_lies_within_no_bound(database: Engine) -> None:
    with database.begin() as connection:
        store_letters(connection, [make_delivery(b"junk " + uuid.uuid4().bytes)])
        letter = connection.exec_driver_sql(
            "SELECT id FROM dead_letter_queue WHERE queue IS NULL LIMIT 1"
        ).scalar_one()
    bound = dataclasses.replace(ADMIN, queues=frozenset({"exec"}))
    with pytest.raises(NotPermitted, match="bound to queues exec"):
        read(database, letter, bound)


def test_reading_needs_a_reason_and_a_letter(database: Engine) -> None:
    letter = stored(database)
    with pytest.raises(InvalidReason):
        read(database, letter, reason=None)
    with pytest.raises(NotFound):
        read(database, "0123456789")
    assert last_entry(database)["outcome"].startswith("refused: there is no dead letter")


def test_without_an_audit_row_there_is_no_message(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the process ends here")

    letter = stored(database)
    monkeypatch.setattr("taskyard.audit.write", fail)
    with pytest.raises(RuntimeError):
        read(database, letter)


def test_the_command_shows_it_to_whoever_may_and_to_nobody_else(
    database: Engine, shell: Shell
) -> None:
    words = ("dlq", "show", str(stored(database)), "--raw")
    ran = shell.run(*words, "--reason", WHY)
    assert (ran.code, ran.out) == (6, "")
    ran = shell.run(*words, TASKYARD_TRUST_LOCAL="1")
    assert (ran.code, ran.out) == (2, "")
    assert "a reason is required" in ran.err
    ran = shell.run(*words, "--reason", WHY, TASKYARD_TRUST_LOCAL="1")
    assert json.loads(ran.out)["headers"]["task"] == "plan_generation"
    assert last_entry(database)["operator_identity"].startswith("local:")
