"""`taskyard.ops.replay`: a signed message replays a letter; one that does not hold is denied."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select

from servers import Servers
from support.databases import owner_url
from support.letters import died, make_delivery
from support.mirror import mirroring
from support.relay import relaying
from support.signing import WHY, Keeper, send_replay
from support.waiting import SOON_S, eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.access import Role
from taskyard.audit import list_unverified
from taskyard.database import create_partitions, opened
from taskyard.database.tables import AUDIT, LETTERS, NONCES, UNVERIFIED
from taskyard.errors import DeadLettered
from taskyard.jobs.states import State
from taskyard.mirror.store_letters import store_letters
from taskyard.settings import Settings
from taskyard.wire.credential_argument import CREDENTIAL

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

BROKERS = ("redis", "rabbitmq")


class Scene:
    """A worker of the pool `ops`, a mirror, a relay, and letters to replay."""

    def __init__(self, settings: Settings, worker: Worker, keeper: Keeper, database: Engine):
        self.settings, self.worker, self.keeper, self.database = settings, worker, keeper, database
        self.harness = ServerHarness(settings)

    def letter(self) -> str:
        letter = died(self.harness.yard.records)
        with self.database.begin() as connection:
            store_letters(connection, [make_delivery(letter)])
        return letter.letter_id

    def signed(self, letter_id: str, **arguments: Any) -> dict[str, Any]:
        return self.keeper.signed(
            self.settings, {"letter_id": letter_id, "reason": WHY, **arguments}
        )

    def send(self, kwargs: dict[str, Any], message_id: str | None = None) -> str:
        return send_replay(self.harness.yard.app, self.settings, kwargs, message_id)

    def result(self, job_id: str) -> Any:
        job = self.harness.yard.job(job_id)
        eventually(lambda: job.state() is not State.NONE, "its record", why=lambda: self.worker.log)
        return job.result(SOON_S)

    def denied(self, kwargs: dict[str, Any], message_id: str | None = None) -> str:
        """Why a message was denied."""
        with pytest.raises(DeadLettered) as dead:
            self.result(self.send(kwargs, message_id))
        assert dead.value.code == "not_permitted"
        return dead.value.detail

    def rows(self, letter_id: str) -> list[dict[str, Any]]:
        query = select(AUDIT).where(AUDIT.c.dead_letter_id == uuid.UUID(letter_id))
        with self.database.connect() as connection:
            return [dict(row) for row in connection.execute(query.order_by(AUDIT.c.id)).mappings()]

    def await_rows(self, letter_id: str, *outcomes: str) -> list[dict[str, Any]]:
        def found() -> bool:
            return [row["outcome"] for row in self.rows(letter_id)] == list(outcomes)

        eventually(found, f"rows {outcomes}", why=lambda: str(self.rows(letter_id)))
        return self.rows(letter_id)


@pytest.fixture(scope="module", params=BROKERS)
def scene(
    request: pytest.FixtureRequest,
    servers: Servers,
    database: Engine,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    url = servers.valkey_url()
    folder = tmp_path_factory.mktemp("operators")
    keeper = Keeper(folder / "keys")
    settings = fresh_settings(
        url,
        broker_url=url if request.param == "redis" else servers.rabbitmq_url(),
        database_url=database_url,
        public_keys=keeper.ring,
    )
    options = ("--loglevel", "DEBUG")
    worker = Worker(settings, folder, queues=("ops",), modules=(HANDLERS,), options=options)
    with database.begin() as connection:
        # A letter that is moved to a new week's partition cannot be found meanwhile.
        create_partitions(connection, datetime.now(UTC))
    with worker.start(), mirroring(settings, database_url), relaying(settings, database):
        made = Scene(settings, worker, keeper, database)
        yield made
        made.harness.close()


def test_a_signed_message_replays_its_letter_as_its_signer(scene: Scene) -> None:
    letter_id = scene.letter()
    kwargs = scene.signed(letter_id, on_behalf_of="customer@example.com")
    job_id = scene.send(kwargs)
    answer = scene.result(job_id)
    asked, applied = scene.await_rows(letter_id, "requested", "applied")
    assert answer["request_id"] == str(asked["request_id"]) == str(applied["request_id"])
    assert answer["generation"] == 1
    assert asked["operator_identity"] == "anna@example.com"
    assert asked["identity_via"] == f"key:{scene.keeper.key.key_id}"
    assert asked["on_behalf_of"] == "customer@example.com"
    assert asked["reason"] == WHY
    assert asked["detail"]["message_id"] == job_id


def test_a_byte_identical_copy_is_the_same_call(scene: Scene) -> None:
    letter_id = scene.letter()
    kwargs, message_id = scene.signed(letter_id), str(uuid.uuid4())
    first = scene.result(scene.send(kwargs, message_id))
    again = scene.result(scene.send(kwargs, message_id))
    assert first["request_id"] == again["request_id"]
    scene.await_rows(letter_id, "requested", "applied")


def test_the_credential_in_another_message_is_refused(scene: Scene) -> None:
    letter_id = scene.letter()
    kwargs = scene.signed(letter_id)
    scene.result(scene.send(kwargs))
    assert "was used for another message" in scene.denied(kwargs)
    scene.await_rows(letter_id, "requested", "applied")


def test_what_the_signer_may_not_do_is_denied_and_audited_once(scene: Scene) -> None:
    letter_id = scene.letter()
    viewer = replace(scene.keeper.identity, role=Role.VIEWER)
    kwargs = scene.keeper.signed(
        scene.settings, {"letter_id": letter_id, "reason": WHY}, identity=viewer
    )
    message_id = str(uuid.uuid4())
    assert "has the role viewer and may not do controlled_replay" in scene.denied(
        kwargs, message_id
    )
    query = select(AUDIT).where(AUDIT.c.detail["message_id"].astext == message_id)
    with scene.database.connect() as connection:
        (row,) = connection.execute(query).mappings().all()
    assert (row["operator_identity"], row["outcome"]) == ("anna@example.com", "denied")


def test_a_refusal_tells_why(scene: Scene) -> None:
    letter_id = scene.letter()
    with pytest.raises(DeadLettered, match="is too short or too general") as dead:
        scene.result(scene.send(scene.signed(letter_id, reason="fix it")))
    assert dead.value.code == "refused"


def test_messages_that_do_not_hold_are_denied_and_leave_the_letter_alone(scene: Scene) -> None:
    with scene.database.begin() as connection:
        connection.execute(UNVERIFIED.delete())
    letter_id = scene.letter()
    sound = scene.signed(letter_id)
    other = scene.signed(scene.letter())
    late = scene.keeper.signed(
        scene.settings, {"letter_id": letter_id, "reason": WHY}, ago=timedelta(minutes=16)
    )
    for kwargs, said in (
        ({"letter_id": letter_id, "reason": WHY}, "has no credential"),
        ({**sound, CREDENTIAL: "v1.x.y.z"}, "not of the form"),
        ({**sound, CREDENTIAL: sound[CREDENTIAL][:-6]}, "not of the form"),
        ({**sound, CREDENTIAL: 7}, "not of the form"),
        ({**sound, CREDENTIAL: other[CREDENTIAL]}, "is for another target"),
        ({**sound, "force": True}, "is for other arguments"),
        (late, "has expired"),
    ):
        assert said in scene.denied(kwargs)
    counted = {row["why"]: row["count"] for row in list_unverified(scene.database, None, 100)}
    assert (counted["unsigned"], counted["malformed"]) == (1, 3)
    assert (counted["wrong_target"], counted["wrong_arguments"], counted["expired"]) == (1, 1, 1)
    assert scene.rows(letter_id) == []
    with scene.database.connect() as connection:
        query = select(LETTERS.c.status).where(LETTERS.c.id == uuid.UUID(letter_id))
        assert connection.scalar(query) == "pending"


def test_no_record_event_letter_or_log_has_the_credential(scene: Scene) -> None:
    letter_id = scene.letter()
    kwargs = scene.signed(letter_id, force=True, reason=None)
    broken = {**kwargs, "queue": "nowhere"}
    message_id = scene.send(broken)
    with pytest.raises(DeadLettered):
        scene.result(message_id)
    secret = kwargs[CREDENTIAL].split(".")[3]
    rows = eventually(lambda: stored(scene.database, message_id), "its letter")
    assert [name for name, value in rows[0].items() if secret in str(value)] == []
    assert CREDENTIAL.encode() not in bytes(rows[0]["body"])
    for key in scene.harness.redis.scan_iter(f"{scene.settings.namespace}:job:{message_id}*"):
        assert secret not in str(scene.harness.redis.hgetall(key))
    assert secret not in str(scene.harness.events())
    assert secret not in scene.worker.log
    assert message_id in scene.worker.log


def stored(database: Engine, job_id: str) -> list[dict[str, Any]]:
    with database.connect() as connection:
        query = select(LETTERS).where(LETTERS.c.original_request_id == job_id)
        return [dict(row) for row in connection.execute(query).mappings()]


def test_nonces_are_kept_until_no_receiver_takes_them_and_no_longer(
    scene: Scene, servers: Servers
) -> None:
    letter_id = scene.letter()
    scene.result(scene.send(scene.signed(letter_id)))
    with scene.database.connect() as connection:
        assert connection.execute(select(NONCES)).mappings().all()
    ours = scene.database.url.render_as_string(hide_password=False)
    # The role that runs changes no nonce.
    with opened(owner_url(servers, ours)) as owner, owner.begin() as connection:
        connection.execute(NONCES.update().values(expires_at="2020-01-01T00:00:00Z"))
    scene.result(scene.send(scene.signed(scene.letter())))
    with scene.database.connect() as connection:
        assert len(connection.execute(select(NONCES)).all()) == 1


def test_a_signed_message_whose_arguments_are_invalid_leaves_one_row_that_says_why(
    scene: Scene,
) -> None:
    letter_id = scene.letter()
    for changes, why in (
        ({"nonsense": 1}, "nonsense"),
        ({"payload": 1, "args": []}, "give either 'payload' or these"),
        ({"queue": "a\x00b"}, "a queue's name has"),
        ({"queue": "a\ud800b"}, "a queue's name has"),
        ({"queue": ""}, "a queue's name has"),
        ({"queue": "q" * 100_000}, "got 100000 characters"),
        ({"payload": {"x": "\ud800"}}, "is not JSON"),
        ({"payload": {"\x00": 1}}, "NUL"),
        ({"force": "perhaps", "on_behalf_of": "x\ud800y"}, "force"),
        ({"reason": 7}, "reason"),
        ({"letter_id": letter_id[:8]}, "letter_id"),
        ({"letter_id": letter_id[:-1]}, "letter_id"),
    ):
        kwargs = scene.keeper.signed(
            scene.settings, {"letter_id": letter_id, "reason": WHY, **changes}
        )
        message_id = scene.send(kwargs)
        with pytest.raises(DeadLettered) as dead:
            scene.result(message_id)
        assert dead.value.code == "refused", dead.value
        query = select(AUDIT).where(AUDIT.c.detail["message_id"].astext == message_id)
        with scene.database.connect() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        (row,) = rows
        assert row["outcome"].startswith("refused: "), (changes, row)
        assert why in row["outcome"], (changes, row)
        assert row["operator_identity"] == "anna@example.com"
        assert len(str(row)) < 8000
    with scene.database.connect() as connection:
        query = select(LETTERS.c.status).where(LETTERS.c.id == uuid.UUID(letter_id))
        assert connection.scalar(query) == "pending"
