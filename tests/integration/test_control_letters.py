"""Reading letters."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update

from support.letters import DIED_US, make_delivery, make_letter
from taskyard.access import Identity, Role
from taskyard.clock import from_us
from taskyard.control import letters, read_payload, replay
from taskyard.control.letters import Filters
from taskyard.database.tables import LETTERS
from taskyard.errors import NotFound, Refused
from taskyard.mirror.store_letters import store_letters

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

pytestmark = pytest.mark.usefixtures("empty_database")


def stored(database: Engine, **changes: Any) -> str:
    letter = make_letter(**changes)
    with database.begin() as connection:
        store_letters(connection, [make_delivery(letter)])
    return letter.letter_id


def found(database: Engine, **filters: Any) -> list[str]:
    return [row["original_request_id"] for row in letters.list(database, Filters(**filters))]


def test_the_newest_letters_come_first_and_no_more_than_asked_for(database: Engine) -> None:
    for age in range(3):
        stored(database, job_id=f"j{age}", last_failure_us=DIED_US - age)
    assert found(database) == ["j0", "j1", "j2"]
    assert len(letters.list(database, limit=2)) == 2


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_out_of_range_is_refused(database: Engine, limit: int) -> None:
    with pytest.raises(Refused, match=f"from 1 to 1000, got {limit}"):
        letters.list(database, limit=limit)


@pytest.mark.parametrize(
    ("changes", "filters"),
    [
        ({"category": "timeout"}, {"failure_category": "timeout"}),
        ({"job_type": "test_execution"}, {"job_type": "test_execution"}),
        ({"queue": "exec"}, {"queue": "exec"}),
        ({"domain": "shop"}, {"domain": "shop"}),
        ({"job_id": "wanted"}, {"original_request_id": "wanted"}),
        ({"fingerprint": "beef"}, {"fingerprint": "beef"}),
        ({"escalate_to": "review"}, {"status": "manual_review"}),
        ({"last_failure_us": DIED_US + 9}, {"since": from_us(DIED_US + 9)}),
        ({"last_failure_us": DIED_US - 9}, {"until": from_us(DIED_US - 8)}),
    ],
)
def test_each_filter_narrows(
    database: Engine, changes: dict[str, Any], filters: dict[str, Any]
) -> None:
    stored(database)
    stored(database, **{"job_id": "wanted", **changes})
    assert found(database, **filters) == ["wanted"]


def test_an_identity_sees_what_lies_within_its_queues_and_domains(database: Engine) -> None:
    places = [("exec", "shop"), ("exec", "billing"), ("exec", None), ("plan", "shop")]
    names = {place: stored(database, queue=place[0], domain=place[1]) for place in places}
    bounds = [
        (None, None, places),
        ({"exec"}, None, places[:3]),
        (None, {"shop"}, [places[0], places[3]]),
        ({"exec", "ops"}, {"shop", "billing"}, places[:2]),
        (set(), None, []),
    ]
    for queues, domains, within in bounds:
        someone = Identity(
            "a@example.com",
            via="test",
            role=Role.VIEWER,
            queues=None if queues is None else frozenset(queues),
            domains=None if domains is None else frozenset(domains),
        )
        assert [place for place in places if someone.sees(*place)] == within
        rows = letters.list(database, identity=someone)
        assert {str(row["id"]) for row in rows} == {names[place] for place in within}
        assert letters.stats(database, identity=someone).total == len(within)
        for place, name in names.items():
            if place in within:
                assert str(letters.show(database, name, identity=someone)["id"]) == name
            else:
                with pytest.raises(NotFound, match=r"there is no dead letter .* taskyard dlq list"):
                    letters.show(database, name, identity=someone)


def test_deleted_letters_are_seen_only_by_asking_for_them(database: Engine) -> None:
    stored(database, job_id="gone")
    with database.begin() as connection:
        connection.execute(update(LETTERS).values(status="deleted"))
    assert found(database) == []
    assert found(database, status="deleted") == ["gone"]


def test_secrets_are_masked_wherever_they_stand_and_bytes_are_hashes(database: Engine) -> None:
    name = stored(database)
    shown = letters.show(database, name)
    assert "hunter2" not in str(shown)
    assert shown["args"] == [{"password": "[redacted]", "n": 1}]
    assert shown["failure_reason"] == "timed out, password=[redacted]"
    assert set(shown["body"]) == {"bytes", "sha256"}
    assert "hunter2" not in str(letters.list(database))


def test_a_letter_is_shown_by_the_first_six_characters_with_or_without_hyphens(
    database: Engine,
) -> None:
    name = stored(database)
    for part in (name, name[:6], name[:13], name.replace("-", "")[:20]):
        assert str(letters.show(database, part)["id"]) == name


def test_an_ambiguous_prefix_lists_the_candidates(database: Engine) -> None:
    ids = [uuid.UUID(f"abcdef{n:026x}") for n in range(7)]
    with database.begin() as connection:
        row = {"failure_category": "timeout", "failure_reason": "x", "replay_eligible": False}
        row |= {"mirror_error": "x", "raw_envelope": b"x", "decided_at": from_us(DIED_US)}
        connection.execute(insert(LETTERS), [{**row, "id": one} for one in ids])
    with pytest.raises(Refused, match=f"ambiguous: {ids[0]}, ") as caught:
        letters.show(database, "abcdef")
    assert str(caught.value).endswith(f"{ids[4]} and more. Give more characters.")
    assert letters.show(database, str(ids[3]))["id"] == ids[3]


def test_a_prefix_names_no_letter_outside_of_the_bounds(database: Engine) -> None:
    someone = Identity(
        "a@example.com", via="test", role=Role.OPERATOR, queues=frozenset({"within"})
    )
    names = [stored(database, queue=queue) for queue in ("within", "outside", "outside")]
    ids = [uuid.UUID(f"fedcba{n:026x}") for n in range(3)]
    with database.begin() as connection:
        for name, new in zip(names, ids, strict=True):
            row = select(LETTERS).where(LETTERS.c.id == uuid.UUID(name))
            copied = dict(connection.execute(row).mappings().one())
            del copied["mirrored_at"]  # the server's
            connection.execute(insert(LETTERS).values({**copied, "id": new}))
    assert letters.show(database, "fedcba", identity=someone)["id"] == ids[0]
    asked = replay(database, "fedcba", identity=someone, reason="The shop is back, ticket 12345")
    assert asked.letter_id == ids[0]
    elsewhere = dataclasses.replace(someone, queues=frozenset({"nothing"}), role=Role.ADMIN)
    for verb in (
        letters.show,
        partial(replay, reason="The shop is back, ticket 12345"),
        partial(read_payload, reason="The shop is back, ticket 12345"),
    ):
        with pytest.raises(NotFound, match="there is no dead letter 'fedcba'"):
            verb(database, "fedcba", identity=elsewhere)


@pytest.mark.parametrize("name", ["", "abc", "zzzzzzzz", "'; DROP TABLE x", "a" * 40])
def test_what_is_no_id_is_told_what_an_id_is(database: Engine, name: str) -> None:
    with pytest.raises(NotFound, match="is not a dead letter's id: expected a UUID or at least 6"):
        letters.show(database, name)


def test_an_id_that_is_not_there_names_the_next_command(database: Engine) -> None:
    with pytest.raises(NotFound, match=r"there is no dead letter .abcdef"):
        letters.show(database, "abcdef")


def test_stats_count_by_status_and_what_is_open_by_category(database: Engine) -> None:
    stored(database, category="timeout")
    stored(database, category="timeout", escalate_to="review")
    done = stored(database, category="poison")
    with database.begin() as connection:
        connection.execute(
            update(LETTERS).where(LETTERS.c.id == uuid.UUID(done)).values(status="completed")
        )
    counts = letters.stats(database)
    assert counts.total == 3
    assert counts.by_status == {"pending": 1, "manual_review": 1, "completed": 1}
    assert counts.by_category == {"timeout": 2}


def test_filters_on_time_take_any_zone(database: Engine) -> None:
    stored(database, job_id="j")
    since = from_us(DIED_US).astimezone() - timedelta(seconds=1)
    assert found(database, since=since) == ["j"]
