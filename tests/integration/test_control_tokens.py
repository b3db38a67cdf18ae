"""Tokens: made, verified, rotated, revoked; each refusal its own, and no secret anywhere."""

from __future__ import annotations

import dataclasses
import hmac
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, select, text, update

from taskyard import audit
from taskyard.access import Action, Identity, Role, Token
from taskyard.audit import Outcome
from taskyard.control import authenticate_operator, identify, keys, tokens, users
from taskyard.control.authenticate_operator import token_identity
from taskyard.control.rights import Rights, check_grantable, check_subject
from taskyard.control.tokens import IssuedToken, TokenState
from taskyard.database.tables import AUDIT, GRANTS, TOKENS, UNVERIFIED
from taskyard.errors import (
    InvalidReason,
    InvalidRights,
    NotFound,
    NotPermitted,
    Refused,
    TokenRefused,
)
from taskyard.settings import Settings

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

ROOT = Identity("root@example.com", via="test", role=Role.ADMIN)
WHY = "Ada joined the payments team, ticket 12345"
OPERATOR = Rights(Role.OPERATOR)


def make(database: Engine, rights: Rights = OPERATOR, **options: Any) -> IssuedToken:
    subject = options.pop("subject", f"ada-{uuid.uuid4().hex[:8]}@example.com")
    return tokens.create(database, subject, rights, **{"identity": ROOT, "reason": WHY, **options})


def entries(database: Engine, subject: str) -> list[dict[str, Any]]:
    query = select(AUDIT).where(AUDIT.c.detail["subject"].astext == subject).order_by(AUDIT.c.id)
    with database.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def last_entry(database: Engine) -> dict[str, Any]:
    with database.connect() as connection:
        query = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(1)
        return dict(connection.execute(query).mappings().one())


def change(database: Engine, issued: IssuedToken, **values: Any) -> None:
    with database.begin() as connection:
        connection.execute(update(TOKENS).where(TOKENS.c.id == issued.token.id).values(values))


def refusal(database: Engine, token: Token) -> TokenRefused:
    with pytest.raises(TokenRefused) as caught:
        token_identity(database, token)
    assert token.secret not in str(caught.value)
    return caught.value


def test_a_token_makes_its_bearer_the_subject_with_its_rights(database: Engine) -> None:
    rights = Rights(
        Role.OPERATOR,
        frozenset({"exec", "plan"}),
        frozenset({"billing"}),
        frozenset({Action.READ_PAYLOAD}),
    )
    issued = make(database, rights, subject="ada@example.com")
    found = token_identity(database, issued.token)
    assert found == Identity(
        "ada@example.com",
        via=f"token:{issued.token.id}",
        role=Role.OPERATOR,
        queues=frozenset({"exec", "plan"}),
        domains=frozenset({"billing"}),
        granted=frozenset({Action.READ_PAYLOAD}),
    )


def test_without_bounds_a_token_is_bound_to_none(database: Engine) -> None:
    found = token_identity(database, make(database).token)
    assert (found.queues, found.domains, found.granted) == (None, None, frozenset())


def test_making_a_token_is_audited_without_its_secret(database: Engine) -> None:
    issued = make(database, subject="grace@example.com", on_behalf_of="boss@example.com")
    (entry,) = entries(database, "grace@example.com")
    assert (entry["action_type"], entry["outcome"]) == ("create_token", "applied")
    assert (entry["operator_identity"], entry["reason"]) == ("root@example.com", WHY)
    assert entry["on_behalf_of"] == "boss@example.com"
    assert entry["detail"]["id"] == issued.token.id
    assert issued.token.secret not in str(entry)


def test_the_database_holds_a_hash_and_no_secret(database: Engine) -> None:
    issued = make(database)
    with database.connect() as connection:
        row = connection.execute(
            text("SELECT t::text AS whole, secret_sha256 FROM operator_tokens t WHERE id = :id"),
            {"id": issued.token.id},
        ).one()
    assert bytes(row.secret_sha256) == issued.token.digest()
    assert issued.token.secret not in row.whole
    assert issued.token.secret not in repr(issued)


def test_an_unknown_id_and_a_wrong_secret_are_one_answer(database: Engine) -> None:
    issued = make(database)
    unknown = refusal(database, Token("0" * 12, issued.token.secret))
    wrong = refusal(database, issued.token.with_new_secret())
    assert unknown.code == wrong.code == "unknown"
    assert str(unknown) == str(wrong)
    assert "taskyard tokens create" in str(unknown)


def test_a_revoked_or_expired_token_says_so_only_to_whoever_has_its_secret(
    database: Engine,
) -> None:
    revoked, expired = make(database), make(database)
    change(database, revoked, revoked_at=datetime.now(UTC), revoked_by="x")
    change(database, expired, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    for issued, code, words in (
        (revoked, "revoked", "was revoked at"),
        (expired, "expired", "expired at"),
    ):
        own = refusal(database, issued.token)
        assert own.code == code
        assert words in str(own)
        assert "taskyard tokens create" in str(own)
        assert refusal(database, issued.token.with_new_secret()).code == "unknown"


@pytest.mark.parametrize("known", [True, False])
def test_each_check_compares_twice_and_in_constant_time(
    database: Engine, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    issued = make(database)
    token = issued.token if known else Token("f" * 12, issued.token.secret)
    compared: list[int] = []

    def counting(left: bytes, right: bytes) -> bool:
        compared.append(len(left) + len(right))
        return hmac.compare_digest(left, right)

    monkeypatch.setattr(authenticate_operator, "compare_digest", counting)
    if known:
        token_identity(database, token)
    else:
        refusal(database, token)
    assert compared == [64, 64]


def test_the_last_use_is_noted_to_the_minute(database: Engine) -> None:
    issued = make(database)
    (before,) = tokens.list_tokens(database, subject=issued.info.subject)
    assert before.last_used_at is None
    token_identity(database, issued.token)
    (after,) = tokens.list_tokens(database, subject=issued.info.subject)
    assert after.last_used_at is not None
    assert after.last_used_at.second == 0
    refusal(database, issued.token.with_new_secret())
    assert tokens.list_tokens(database, subject=issued.info.subject) == (after,)


def test_after_a_rotation_both_secrets_are_taken_until_the_overlap_is_over(
    database: Engine,
) -> None:
    old = make(database)
    new = tokens.rotate(
        database, old.token.id, identity=ROOT, reason=WHY, overlap=timedelta(hours=1)
    )
    assert new.token.id == old.token.id
    assert token_identity(database, old.token) == token_identity(database, new.token)
    change(database, old, previous_until=datetime.now(UTC) - timedelta(seconds=1))
    ended = refusal(database, old.token)
    assert ended.code == "rotated"
    assert "Use the newer one" in str(ended)
    token_identity(database, new.token)


def test_a_rotation_without_overlap_ends_the_old_secret_at_once(database: Engine) -> None:
    old = make(database)
    tokens.rotate(database, old.token.id, identity=ROOT, reason=WHY, overlap=timedelta())
    assert refusal(database, old.token).code == "rotated"


def test_a_second_rotation_ends_the_oldest_secret_at_once(database: Engine) -> None:
    first = make(database)
    second = tokens.rotate(database, first.token.id, identity=ROOT, reason=WHY)
    third = tokens.rotate(database, first.token.id, identity=ROOT, reason=WHY)
    assert refusal(database, first.token).code == "unknown"
    assert token_identity(database, second.token) == token_identity(database, third.token)


def test_an_overlap_does_not_outlive_the_tokens_own_end(database: Engine) -> None:
    old = make(database, lifetime=timedelta(minutes=5))
    new = tokens.rotate(
        database, old.token.id, identity=ROOT, reason=WHY, overlap=timedelta(hours=1)
    )
    assert new.info.previous_until == old.info.expires_at
    assert new.info.expires_at > old.info.expires_at
    assert new.info.expires_at - datetime.now(UTC) < timedelta(minutes=6)


def test_a_rotated_and_then_revoked_token_ends_with_both_secrets(database: Engine) -> None:
    old = make(database)
    new = tokens.rotate(database, old.token.id, identity=ROOT, reason=WHY)
    gone = tokens.revoke(database, old.token.id, identity=ROOT, reason=WHY)
    assert (gone.state, gone.revoked_by) == (TokenState.REVOKED, "root@example.com")
    assert refusal(database, old.token).code == refusal(database, new.token).code == "revoked"
    actions = [entry["action_type"] for entry in entries(database, old.info.subject)]
    assert actions == ["create_token", "rotate_token", "revoke_token"]


def test_of_two_rotations_at_once_both_newer_secrets_are_taken(database: Engine) -> None:
    old = make(database)

    def turn(_: int) -> IssuedToken:
        return tokens.rotate(database, old.token.id, identity=ROOT, reason=WHY)

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(turn, range(2)))
    for issued in both:
        token_identity(database, issued.token)


@pytest.mark.parametrize("verb", [tokens.rotate, tokens.revoke])
def test_what_is_over_is_refused_and_audited(database: Engine, verb: Any) -> None:
    issued = make(database)
    tokens.revoke(database, issued.token.id, identity=ROOT, reason=WHY)
    with pytest.raises(Refused, match=r"was revoked at .* UTC by root@example.com"):
        verb(database, issued.token.id, identity=ROOT, reason=WHY)
    assert last_entry(database)["outcome"].startswith("refused: the token")


def test_an_expired_token_is_not_rotated_but_can_be_revoked(database: Engine) -> None:
    issued = make(database)
    change(database, issued, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(Refused, match=r"expired at .* Create another"):
        tokens.rotate(database, issued.token.id, identity=ROOT, reason=WHY)
    assert tokens.revoke(database, issued.token.id, identity=ROOT, reason=WHY).state == "revoked"


@pytest.mark.parametrize("name", ["0" * 12, "zzz", "", Token("f" * 12, "s" * 43).reveal()])
def test_an_id_that_no_token_has_is_not_found_and_never_repeats_a_secret(
    database: Engine, name: str
) -> None:
    with pytest.raises(NotFound, match="taskyard tokens list") as caught:
        tokens.revoke(database, name, identity=ROOT, reason=WHY)
    if len(name) > 12:
        assert name[-20:] not in str(caught.value) + str(last_entry(database))


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_only_an_admin_deals_with_tokens_and_a_denial_is_audited(
    database: Engine, role: Role
) -> None:
    low = Identity("low@example.com", via="test", role=role)
    issued = make(database)
    for action, call in (
        ("create_token", lambda: make(database, Rights(Role.VIEWER), identity=low)),
        (
            "rotate_token",
            lambda: tokens.rotate(database, issued.token.id, identity=low, reason=WHY),
        ),
        (
            "revoke_token",
            lambda: tokens.revoke(database, issued.token.id, identity=low, reason=WHY),
        ),
    ):
        with pytest.raises(NotPermitted, match=f"may not do {action}"):
            call()
        entry = last_entry(database)
        assert (entry["action_type"], entry["outcome"]) == (action, "denied")
    token_identity(database, issued.token)


def test_a_bound_admin_deals_with_no_token(database: Engine) -> None:
    bound = dataclasses.replace(ROOT, queues=frozenset({"exec"}))
    with pytest.raises(NotPermitted, match="bound to queues exec"):
        make(database, Rights(Role.VIEWER, frozenset({"exec"})), identity=bound)


@pytest.mark.parametrize(
    ("giver", "rights", "words"),
    [
        (Role.OPERATOR, Rights(Role.ADMIN), "cannot give the role admin"),
        (
            Role.OPERATOR,
            Rights(Role.VIEWER, granted=frozenset({Action.READ_PAYLOAD})),
            "may not do read_payload and cannot give it",
        ),
    ],
)
def test_nobody_gives_what_is_above_their_own_role(giver: Role, rights: Rights, words: str) -> None:
    with pytest.raises(NotPermitted, match=words):
        check_grantable(Identity("a@example.com", via="test", role=giver), rights)


@pytest.mark.parametrize("bound", ["queues", "domains"])
def test_nobody_gives_what_is_beyond_their_own_bounds(bound: str) -> None:
    giver = Identity("a@example.com", via="test", role=Role.ADMIN, **{bound: frozenset({"a", "b"})})
    check_grantable(giver, Rights(Role.VIEWER, **{bound: frozenset({"a"})}))
    for given in (None, frozenset({"a", "c"})):
        with pytest.raises(NotPermitted, match=f"limited to the {bound} a, b and cannot give"):
            check_grantable(giver, Rights(Role.VIEWER, **{bound: given}))


def test_what_comes_with_a_role_cannot_be_granted_by_name(database: Engine) -> None:
    with pytest.raises(
        InvalidRights,
        match="cannot be granted by name; these can be granted: engage_kill_switch, read_payload, ",
    ):
        make(database, Rights(Role.VIEWER, granted=frozenset({Action.PURGE_QUEUE})))
    assert last_entry(database)["outcome"].startswith("refused: purge_queue belongs to a role")


@pytest.mark.parametrize(
    "name", ["", "a b", "a\nb", "x" * 201, "a\u202eb", "local:root@host", "BROKER:unverified"]
)
def test_a_name_that_misleads_is_refused(database: Engine, name: str) -> None:
    with pytest.raises(InvalidRights, match="name"):
        make(database, subject=name)
    assert last_entry(database)["outcome"].startswith("refused: ")


def _given(database: Engine, where: str, text: str) -> None:
    """Give a text that is stored as a name, as each verb takes it."""
    held, viewer = {"identity": ROOT, "reason": WHY}, Role.VIEWER
    match where:
        case "subject of a token":
            tokens.create(database, text, OPERATOR, **held)
        case "queue of a token":
            make(database, Rights(viewer, queues=frozenset({text})))
        case "domain of a token":
            make(database, Rights(viewer, domains=frozenset({text})))
        case "subject of a grant":
            users.grant(database, text, OPERATOR, **held)
        case "queue of a grant":
            users.grant(database, "bob@x", Rights(viewer, queues=frozenset({text})), **held)
        case "revoked name":
            users.revoke(database, text, **held)
        case _:
            binding = keys.Binding(frozenset({text}), OPERATOR)
            keys.register(database, Path("no-such-folder/ring"), bytes(32), binding, **held)


@pytest.mark.parametrize("around", ["{}", "queue-{}", "{}@example.com"])
@pytest.mark.parametrize(
    "where",
    [
        "subject of a token", "queue of a token", "domain of a token", "subject of a grant",
        "queue of a grant", "revoked name", "subject of a key",
    ],
)  # fmt: skip
def test_a_whole_token_where_a_name_belongs_is_refused_and_stored_nowhere(
    database: Engine, where: str, around: str
) -> None:
    token = Token.new()
    with pytest.raises((InvalidRights, NotFound)) as caught:
        _given(database, where, around.format(token.reveal()))
    assert token.secret not in str(caught.value)
    with database.connect() as connection:
        for table in (AUDIT, TOKENS, GRANTS):
            rows = connection.execute(select(table)).all()
            assert token.secret not in str(rows)


def test_an_audit_row_holds_no_token_in_any_of_its_columns(database: Engine) -> None:
    token = Token.new()
    request_id, secret = uuid.uuid4(), token.reveal()
    entry = audit.Entry(
        request_id=request_id,
        action_type=Action.CREATE_TOKEN,
        operator_identity=secret,
        identity_via="test",
        reason=f"see {secret}",
        outcome=Outcome.REQUESTED,
        on_behalf_of=secret,
        target_request_id=secret,
        detail={"queues": [secret, {"deep": (secret,)}], secret: "key"},
    )
    with database.begin() as connection:
        audit.write(connection, entry)
        audit.answer(connection, request_id, Outcome.APPLIED, {"queue": secret})
        rows = audit.rows_of(connection, request_id)
    assert len(rows) == 2
    assert token.secret not in str(rows)
    assert token.id in str(rows)


@pytest.mark.parametrize("name", ["ada@example.com", "ci-deploy", "x" * 200, "Zoë"])
def test_an_ordinary_name_is_taken(name: str) -> None:
    assert check_subject(name) == name


@pytest.mark.parametrize("days", [-1, 0, 367, 100_000])
def test_a_lifetime_out_of_bounds_is_refused(database: Engine, days: int) -> None:
    with pytest.raises(InvalidRights, match="a token's lifetime above 0 and of at most 366 days"):
        make(database, lifetime=timedelta(days=days))


def test_a_token_needs_a_reason_that_says_something(database: Engine) -> None:
    with pytest.raises(InvalidReason):
        make(database, reason="testing")
    with pytest.raises(InvalidReason, match="a reason is required"):
        make(database, reason=None)


def test_a_token_in_a_reason_is_not_kept(database: Engine) -> None:
    issued = make(database)
    make(database, subject="careless@example.com", reason=f"replaces {issued.token.reveal()} now")
    (entry,) = entries(database, "careless@example.com")
    assert entry["reason"] == f"replaces ty_{issued.token.id}_[redacted] now"


def test_a_failure_between_token_and_audit_leaves_neither(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the process ends here")

    before = len(tokens.list_tokens(database))
    monkeypatch.setattr("taskyard.audit.write", fail)
    with pytest.raises(RuntimeError):
        make(database)
    assert len(tokens.list_tokens(database)) == before


def test_identify_takes_the_token_first_and_never_falls_back_to_local_trust(
    database: Engine,
) -> None:
    issued = make(database, subject="ada@example.com")
    settings = Settings(trust_local=True, token=SecretStr(issued.token.reveal()))
    assert identify(database, settings).subject == "ada@example.com"
    for given in (issued.token.with_new_secret().reveal(), "hunter2"):
        with pytest.raises(TokenRefused):
            identify(database, Settings(trust_local=True, token=SecretStr(given)))
    assert identify(database, Settings(trust_local=True)).via == "local"
    with pytest.raises(NotPermitted, match=r"TASKYARD_TOKEN .* TASKYARD_TRUST_LOCAL=1"):
        identify(database, Settings())


def test_the_list_shows_who_has_what_and_no_secret(database: Engine) -> None:
    issued = make(database, Rights(Role.VIEWER, frozenset({"exec"})), subject="list@example.com")
    (info,) = tokens.list_tokens(database, subject="list@example.com")
    assert info == issued.info
    assert (info.role, info.queues, info.state) == ("viewer", ("exec",), TokenState.ACTIVE)
    assert info.created_by == "root@example.com"
    assert issued.token.secret not in repr(info)
    assert issued.token.digest().hex() not in repr(info)


def test_who_cannot_be_identified_is_counted_and_nobody_else(database: Engine) -> None:
    issued = make(database)
    revoked = make(database)
    tokens.revoke(database, revoked.token.id, identity=ROOT, reason=WHY)
    refused = {
        "malformed": "hunter2",
        "unknown": issued.token.with_new_secret().reveal(),
        "revoked": revoked.token.reveal(),
        "no_identity": None,
    }
    source = f"a test {uuid.uuid4()}"
    for text_given in refused.values():
        given = None if text_given is None else SecretStr(text_given)
        for _ in range(2):
            with pytest.raises(NotPermitted):
                identify(database, Settings(token=given), source)
    identify(database, Settings(token=SecretStr(issued.token.reveal())), source)
    with database.connect() as connection:
        query = select(UNVERIFIED).where(UNVERIFIED.c.source == source)
        counts: dict[str, int] = {}
        for row in connection.execute(query).mappings():
            counts[row["why"]] = counts.get(row["why"], 0) + row["count"]
    assert counts == dict.fromkeys(refused, 2)
