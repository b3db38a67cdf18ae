"""Replay, up to the outbox: permitted, reasoned, validated, audited, in one transaction."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, text, update

from support.letters import make_delivery, make_letter, make_message
from support.waiting import eventually
from taskyard.access import Identity, Role
from taskyard.control import Edit, ReplayRequested, replay, wait_outcome
from taskyard.database.tables import AUDIT, LETTERS, OUTBOX
from taskyard.errors import InvalidPayload, NotFound, NotPermitted, Refused
from taskyard.mirror.store_letters import store_letters

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

pytestmark = pytest.mark.usefixtures("empty_database")

OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
WHY = "Infrastructure recovered after 2-hour outage"


def stored(database: Engine, **changes: Any) -> uuid.UUID:
    letter = make_letter(**changes)
    with database.begin() as connection:
        store_letters(connection, [make_delivery(letter)])
    return uuid.UUID(letter.letter_id)


def letter_row(database: Engine, letter_id: uuid.UUID) -> dict[str, Any]:
    with database.connect() as connection:
        query = select(LETTERS).where(LETTERS.c.id == letter_id)
        return dict(connection.execute(query).mappings().one())


def audit_rows(database: Engine, letter_id: uuid.UUID | None) -> list[dict[str, Any]]:
    query = select(AUDIT).where(AUDIT.c.dead_letter_id == letter_id).order_by(AUDIT.c.id)
    with database.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def intents(database: Engine) -> list[dict[str, Any]]:
    with database.connect() as connection:
        return [dict(row) for row in connection.execute(select(OUTBOX)).mappings()]


def test_letter_audit_and_intent_are_written_together(database: Engine) -> None:
    letter_id = stored(database, job_id="job-a")
    asked = replay(
        database, letter_id, identity=OPS, reason=WHY, on_behalf_of="customer@example.com"
    )
    assert asked == ReplayRequested(asked.request_id, letter_id, "job-a", generation=1)
    row = letter_row(database, letter_id)
    assert row["status"] == "replayed"
    assert row["replayed_at"] is not None
    (entry,) = audit_rows(database, letter_id)
    assert entry["action_type"] == "controlled_replay"
    assert (entry["operator_identity"], entry["identity_via"]) == ("ops@example.com", "token")
    assert entry["on_behalf_of"] == "customer@example.com"
    assert (entry["reason"], entry["outcome"]) == (WHY, "requested")
    assert entry["target_request_id"] == "job-a"
    (intent,) = intents(database)
    assert intent["id"] == asked.request_id == entry["request_id"]
    assert wait_outcome(database, asked.request_id, timeout_s=0) == "pending"


def test_an_operator_who_acts_for_themselves_acts_on_nobodys_behalf(database: Engine) -> None:
    letter_id = stored(database)
    replay(database, letter_id, identity=OPS, reason=WHY, on_behalf_of="ops@example.com")
    assert audit_rows(database, letter_id)[0]["on_behalf_of"] is None


def test_a_second_replay_fails_and_says_when_and_by_whom(database: Engine) -> None:
    letter_id = stored(database)
    replay(database, letter_id, identity=OPS, reason=WHY)
    with pytest.raises(Refused, match=r"already replayed at 2\d{3}-.* UTC by ops@example.com"):
        replay(
            database,
            letter_id,
            identity=Identity("b@example.com", via="token", role=Role.OPERATOR),
            reason=WHY,
        )
    assert len(intents(database)) == 1
    last = audit_rows(database, letter_id)[-1]
    assert last["operator_identity"] == "b@example.com"
    assert last["outcome"].startswith("refused: letter")


def test_of_many_replays_at_once_one_wins(database: Engine) -> None:
    letter_id = stored(database)

    def attempt(_: int) -> bool:
        try:
            replay(database, letter_id, identity=OPS, reason=WHY)
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(5) as pool:
        assert sorted(pool.map(attempt, range(5))) == [False, False, False, False, True]
    assert len(intents(database)) == 1
    assert len(audit_rows(database, letter_id)) == 5


def test_a_replay_waits_for_whoever_holds_the_letter_and_then_sees_what_they_did(
    database: Engine,
) -> None:
    letter_id = stored(database)
    locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = :n"

    def waits() -> bool:
        with database.connect() as connection:
            return connection.scalar(text(locked), {"n": database.url.database}) == 1

    with ThreadPoolExecutor(1) as pool:
        with database.begin() as connection:
            connection.execute(update(LETTERS).values(status="cancelled"))
            second = pool.submit(replay, database, letter_id, identity=OPS, reason=WHY)
            eventually(waits, "the replay to wait for the letter")
        with pytest.raises(Refused, match="has status 'cancelled'"):
            second.result(timeout=30)
    assert intents(database) == []


def test_a_letter_may_be_named_by_the_start_of_its_id(database: Engine) -> None:
    letter_id = stored(database)
    name = str(letter_id).upper()[:9]
    assert replay(database, name, identity=OPS, reason=WHY).letter_id == letter_id


def test_a_missing_right_is_denied_and_audited(database: Engine) -> None:
    letter_id = stored(database)
    reader = Identity("reader@example.com", via="token", role=Role.VIEWER)
    with pytest.raises(NotPermitted, match="has the role viewer and may not do controlled_replay"):
        replay(database, letter_id, identity=reader, reason=WHY)
    assert letter_row(database, letter_id)["status"] == "pending"
    with database.connect() as connection:
        query = select(AUDIT).where(AUDIT.c.operator_identity == "reader@example.com")
        entry = connection.execute(query).mappings().one()
    assert entry["outcome"] == "denied"
    assert "may not do" in entry["detail"]["why"]


def test_a_bad_reason_is_refused_and_audited(database: Engine) -> None:
    letter_id = stored(database)
    someone = Identity(f"{uuid.uuid4()}@example.com", via="token", role=Role.OPERATOR)
    with pytest.raises(Refused, match="is too short or too general"):
        replay(database, letter_id, identity=someone, reason="fix it")
    with database.connect() as connection:
        query = select(AUDIT.c.reason).where(AUDIT.c.operator_identity == someone.subject)
        assert connection.scalar(query) == "fix it"


def test_what_a_refused_call_hid_is_audited_in_plain_sight(database: Engine) -> None:
    letter_id = stored(database)
    someone = Identity(f"{uuid.uuid4()}@example.com", via="token", role=Role.OPERATOR)
    with pytest.raises(Refused, match="character 7 is U"):
        replay(
            database,
            letter_id,
            identity=someone,
            reason="Outage\u202e over, ticket\x00 \ud800 12345",
            on_behalf_of="eve\x1b[2J",
        )
    with database.connect() as connection:
        query = select(AUDIT).where(AUDIT.c.operator_identity == someone.subject)
        entry = connection.execute(query).one()
    assert entry.reason == "Outage\\u202e over, ticket\\x00 \\ud800 12345"
    assert entry.on_behalf_of == "eve\\x1b[2J"


def test_a_call_of_old_without_a_reason_is_marked_as_such(database: Engine) -> None:
    letter_id = stored(database)
    replay(database, letter_id, identity=OPS, reason=None, require_reason="compatible")
    assert audit_rows(database, letter_id)[0]["reason"] == "unspecified (compatibility)"


def test_a_letter_that_is_not_there_is_not_found_and_the_attempt_is_audited(
    database: Engine,
) -> None:
    someone = Identity(f"{uuid.uuid4()}@example.com", via="token", role=Role.OPERATOR)
    with pytest.raises(NotFound, match="See: taskyard dlq list"):
        replay(database, uuid.uuid4(), identity=someone, reason=WHY)
    with database.connect() as connection:
        query = select(AUDIT.c.outcome).where(AUDIT.c.operator_identity == someone.subject)
        assert str(connection.scalar(query)).startswith("refused: there is no dead letter")


def test_raw_junk_cannot_be_replayed(database: Engine) -> None:
    with database.begin() as connection:
        store_letters(connection, [make_delivery(b"junk")])
        letter_id = connection.scalar(select(LETTERS.c.id))
    assert letter_id is not None
    with pytest.raises(Refused, match="undecodable"):
        replay(database, letter_id, identity=OPS, reason=WHY, force=True)


def test_a_letter_that_postgres_refused_a_part_of_can_be_replayed(database: Engine) -> None:
    letter_id = stored(database, args=[{"text": "a\x00b"}])
    assert letter_row(database, letter_id)["mirror_error"]
    replay(database, letter_id, identity=OPS, reason=WHY)
    assert len(intents(database)) == 1


def test_an_edited_payload_travels_in_the_intent_and_leaves_a_hash_in_the_audit(
    database: Engine,
) -> None:
    letter_id = stored(database, category="validation_error", replay_eligible=False)
    replay(database, letter_id, identity=OPS, reason=WHY, payload=Edit([{"n": 2}]), queue="exec")
    edit = {"args": [{"n": 2}], "kwargs": {}, "payload_only": False}
    assert intents(database)[0]["payload"]["edit"] == edit
    detail = audit_rows(database, letter_id)[0]["detail"]
    assert detail["queue"] == "exec"
    assert len(detail["payload_sha256"]) == 64
    assert '"n"' not in str(detail)


def test_an_edit_that_could_not_be_built_is_refused_at_once(database: Engine) -> None:
    letter_id = stored(database, message=make_message("j", body=b"\x80\x04pickle"))
    with pytest.raises(Refused, match="an edit would lose its callbacks"):
        replay(database, letter_id, identity=OPS, reason=WHY, payload=Edit([1]))
    assert letter_row(database, letter_id)["status"] == "pending"
    assert intents(database) == []


def test_a_failure_before_the_commit_leaves_nothing(database: Engine) -> None:
    letter_id = stored(database)

    def crash(_: object) -> None:
        raise KeyboardInterrupt

    event.listen(database, "commit", crash)
    try:
        with pytest.raises(KeyboardInterrupt):
            replay(database, letter_id, identity=OPS, reason=WHY)
    finally:
        event.remove(database, "commit", crash)
    assert letter_row(database, letter_id)["status"] == "pending"
    assert intents(database) == []
    assert audit_rows(database, letter_id) == []


def test_only_open_letters_are_replayed(database: Engine) -> None:
    letter_id = stored(database)
    with database.begin() as connection:
        connection.execute(update(LETTERS).values(status="deleted"))
    with pytest.raises(Refused, match="has status 'deleted'"):
        replay(database, letter_id, identity=OPS, reason=WHY, force=True)


def test_waiting_for_an_unknown_request_is_an_error(database: Engine) -> None:
    with pytest.raises(NotFound, match="no operator action has the request id"):
        wait_outcome(database, uuid.uuid4(), timeout_s=0)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("job_id", {"job_id": "a\x00b"}),
        ("job_type", {"job_type": "a\x00b"}),
        ("queue", {"queue": "a\x00b"}),
        ("queue", {"queue": "q" * 5_000, "error_message": "\x00"}),
        ("epoch", {"epoch": 2**70}),
        ("generation", {"generation": 2**40}),
    ],
)
def test_a_letter_that_stands_under_another_name_than_its_own_is_not_replayed(
    database: Engine, name: str, changes: dict[str, Any]
) -> None:
    letter_id = stored(database, **changes)
    said = rf"the {name} of letter {letter_id} could not be stored .* Enqueue the job anew"
    with pytest.raises(Refused, match=said):
        replay(database, letter_id, identity=OPS, reason=WHY, force=True)
    assert intents(database) == []


def test_a_letter_that_lost_only_texts_in_its_row_is_replayed(database: Engine) -> None:
    letter_id = stored(database, error_message="a\x00b", args=["\x00"], job_id="job-raw")
    assert letter_row(database, letter_id)["mirror_error"]
    assert replay(database, letter_id, identity=OPS, reason=WHY).job_id == "job-raw"


def test_whoever_is_bound_to_domains_replays_only_what_belongs_to_them(database: Engine) -> None:
    someone = Identity(
        "billing@example.com", "token", Role.OPERATOR, domains=frozenset({"billing"})
    )
    for domain, said in (("shop", "belongs to the domain 'shop'"), (None, "has no domain")):
        with pytest.raises(NotPermitted, match=said):
            replay(database, stored(database, domain=domain), identity=someone, reason=WHY)
    own = stored(database, domain="billing")
    assert replay(database, own, identity=someone, reason=WHY).letter_id == own


def test_whoever_is_bound_to_queues_replays_neither_from_nor_into_another(
    database: Engine,
) -> None:
    letter_id = stored(database)
    queue = letter_row(database, letter_id)["queue"]
    for bound, redirect in (({"elsewhere"}, None), ({queue}, "elsewhere")):
        someone = Identity(
            f"{uuid.uuid4()}@example.com", "token", Role.OPERATOR, queues=frozenset(bound)
        )
        with pytest.raises(NotPermitted, match="is bound to queues"):
            replay(database, letter_id, identity=someone, reason=WHY, queue=redirect)
        with database.connect() as connection:
            query = select(AUDIT.c.outcome).where(AUDIT.c.operator_identity == someone.subject)
            assert connection.scalar(query) == "denied"
    assert letter_row(database, letter_id)["status"] == "pending"


def test_a_letter_without_a_queue_is_outside_every_bound(database: Engine) -> None:
    with database.begin() as connection:
        store_letters(connection, [make_delivery(b"junk")])
        letter_id = connection.scalar(select(LETTERS.c.id).where(LETTERS.c.queue.is_(None)))
    assert letter_id is not None
    bound = Identity("b@example.com", "token", Role.OPERATOR, queues=frozenset({"exec"}))
    with pytest.raises(NotPermitted, match=r"in the queue '\(unknown\)'"):
        replay(database, letter_id, identity=bound, reason=WHY)
    assert [row["outcome"] for row in audit_rows(database, letter_id)] == ["denied"]


@pytest.mark.parametrize("queue", ["", "a\x00b", "a\ud800b", "a\nb\x1b", "q" * 256])
def test_a_name_that_no_queue_can_have_is_refused_and_audited(database: Engine, queue: str) -> None:
    letter_id = stored(database)
    who = Identity(f"{uuid.uuid4()}@example.com", "token", Role.OPERATOR)
    with pytest.raises(InvalidPayload, match="a queue's name has 1 to 255 characters"):
        replay(database, letter_id, identity=who, reason=WHY, queue=queue)
    query = select(AUDIT.c.outcome).where(AUDIT.c.operator_identity == who.subject)
    with database.connect() as connection:
        (outcome,) = connection.scalars(query)
    assert outcome.startswith("refused: a queue's name has")


def test_an_edit_with_text_that_utf_8_cannot_hold_is_invalid() -> None:
    with pytest.raises(InvalidPayload, match="is not JSON"):
        Edit(args=["\ud800"])
