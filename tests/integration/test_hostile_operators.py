"""A hostile client that has the broker and no key: ten ways to have a verb carried out.

It has full access to RabbitMQ, or Redis under the rights of a client that only publishes. It has
seen true messages go by. Each way is denied, and counted once.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from redis import Redis
from redis.exceptions import NoPermissionError
from sqlalchemy import Engine, select

from servers import Servers
from support.legacy_broker import Broker, RabbitBroker, RedisBroker
from support.letters import died, make_delivery
from support.mirror import mirroring
from support.relay import relaying
from support.signing import WHY, Keeper, send_replay
from support.waiting import SOON_S, eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings, list_key
from taskyard.access.broadcast_calls import WHOAMI, call_of_broadcast
from taskyard.access.credential import sign
from taskyard.access.operator_task_table import REPLAY_TASK
from taskyard.audit import list_unverified
from taskyard.broker import is_amqp, own_layout
from taskyard.database import create_partitions
from taskyard.database.tables import AUDIT, LETTERS, UNVERIFIED
from taskyard.jobs.states import State
from taskyard.mirror.store_letters import store_letters
from taskyard.settings import Settings
from taskyard.wire.credential_argument import CREDENTIAL

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

WORD = "hostile"


class Hostile:
    """A client that can publish, and nothing else."""

    def __init__(self, settings: Settings, servers: Servers) -> None:
        self.settings, self.rabbit = settings, is_amqp(settings)
        self.sent: list[str] = []
        self.queue = settings.broker_name("ops")
        if self.rabbit:
            self.broker: Broker = RabbitBroker(settings)
            return
        self.queue = list_key(settings, "ops")
        self.user = f"hostile-{settings.namespace}"
        self._admin = Redis.from_url(servers.valkey_url())
        self._admin.execute_command(
            "ACL", "SETUSER", self.user, "on", f">{WORD}", "resetkeys", "resetchannels",
            f"%W~{self.queue}*", f"&{self._channel}", "-@all", "+lpush", "+publish", "+ping",
            "+client|setinfo", "+client|setname", "+hello", "+select",
        )  # fmt: skip
        at = urlsplit(servers.valkey_url())
        self.url = f"redis://{self.user}:{WORD}@{at.hostname}:{at.port}{at.path}"
        self.client = Redis.from_url(self.url)
        self.broker = RedisBroker(settings.model_copy(update={"broker_url": self.url}))

    @property
    def _channel(self) -> str:
        prefix = own_layout(self.settings).key("", 0).removesuffix("\x06\x160")
        return f"{prefix}/0.{self.settings.broker_name('celery')}.pidbox"

    def push(self, kwargs: dict[str, Any], **headers: Any) -> None:
        self.push_body(json.dumps([[], kwargs, {}]).encode(), **headers)

    def push_body(self, body: bytes, **headers: Any) -> None:
        self.sent.append(str(uuid.uuid4()))
        known = {"id": self.sent[-1], "task": REPLAY_TASK, **headers}
        self.broker.push(self.queue, known, body)

    def broadcast(self, app: Any, arguments: dict[str, Any]) -> None:
        if self.rabbit:
            with app.connection_for_write() as connection:
                app.control.broadcast(WHOAMI, arguments=arguments, connection=connection)
            return
        exchange = f"{self.settings.broker_name('celery')}.pidbox"
        body = {"method": WHOAMI, "arguments": arguments, "destination": None}
        message = {
            "body": json.dumps(body),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {},
            "properties": {
                "delivery_tag": str(uuid.uuid4()),
                "delivery_info": {"exchange": exchange, "routing_key": ""},
            },
        }
        assert self.client.publish(self._channel, json.dumps(message)) == 1, self._channel

    def close(self) -> None:
        self.broker.close()
        if not self.rabbit:
            self.client.close()
            self._admin.execute_command("ACL", "DELUSER", self.user)
            self._admin.close()


@dataclass
class Scene:
    """A worker of the pool `ops`, a mirror, a relay; one operator; and a hostile client."""

    settings: Settings
    keeper: Keeper
    database: Engine
    harness: ServerHarness
    hostile: Hostile
    worker: Worker

    def letter(self) -> str:
        letter = died(self.harness.yard.records)
        with self.database.begin() as connection:
            store_letters(connection, [make_delivery(letter)])
        return letter.letter_id

    def outcomes(self, letter_id: str) -> list[str]:
        query = select(AUDIT.c.outcome).where(AUDIT.c.dead_letter_id == uuid.UUID(letter_id))
        with self.database.connect() as connection:
            return list(connection.scalars(query.order_by(AUDIT.c.id)))

    def denials(self) -> Counter[tuple[str, str]]:
        rows = list_unverified(self.database, None, 100)
        return Counter({(row["source"], row["why"]): row["count"] for row in rows})


@pytest.fixture(params=["redis", "rabbitmq"])
def scene(
    request: pytest.FixtureRequest,
    servers: Servers,
    empty_database: Engine,
    database_url: str,
    tmp_path: Path,
) -> Iterator[Scene]:
    url = servers.valkey_url()
    keeper = Keeper(tmp_path / "keys")
    settings = fresh_settings(
        url,
        broker_url=url if request.param == "redis" else servers.rabbitmq_url(),
        database_url=database_url,
        public_keys=keeper.ring,
    )
    with empty_database.begin() as connection:
        create_partitions(connection, datetime.now(UTC))
        connection.execute(UNVERIFIED.delete())
    harness, hostile = ServerHarness(settings), Hostile(settings, servers)
    worker = Worker(settings, tmp_path, queues=("ops",), modules=(HANDLERS,))
    with (
        worker.start(),
        mirroring(settings, database_url),
        relaying(settings, empty_database),
    ):
        yield Scene(settings, keeper, empty_database, harness, hostile, worker)
        hostile.close()
        harness.close()


def test_ten_ways_to_have_a_verb_carried_out_are_each_denied_and_counted_once(
    scene: Scene,
) -> None:
    seen_id, target_id = scene.letter(), scene.letter()
    wanted = {"letter_id": target_id, "reason": WHY}
    # What it has seen: one message that was carried out, an old one, one of another namespace, a
    # broadcast. Its own key is in no ring.
    seen = scene.keeper.signed(scene.settings, {"letter_id": seen_id, "reason": WHY})
    job = scene.harness.yard.job(send_replay(scene.harness.yard.app, scene.settings, seen))
    eventually(
        lambda: job.state() is State.COMPLETED, "the true message", why=lambda: scene.worker.log
    )
    late = scene.keeper.signed(scene.settings, wanted, ago=timedelta(minutes=16))
    elsewhere = scene.settings.model_copy(update={"namespace": "elsewhere"})
    abroad = scene.keeper.signed(elsewhere, wanted)
    call = call_of_broadcast(scene.settings.namespace, WHOAMI)
    whoami = sign(
        scene.keeper.key, scene.keeper.identity, call,
        now=datetime.now(UTC), life=timedelta(minutes=10),
    )  # fmt: skip
    forger = Keeper(scene.keeper.folder / "forger", private=Ed25519PrivateKey.generate())
    forged = forger.signed(scene.settings, wanted)
    under_her_name = forged[CREDENTIAL].replace(forger.key.key_id, scene.keeper.key.key_id)
    text = seen[CREDENTIAL]

    push = scene.hostile.push
    push(wanted)
    push(forged)
    push({**wanted, CREDENTIAL: under_her_name})
    push(seen)
    push({**wanted, CREDENTIAL: text})
    push({**seen, "force": True})
    push({**seen, CREDENTIAL: text[:-1]})
    push({**wanted, CREDENTIAL: whoami})
    push(late)
    push(abroad)
    # What no handler sees: two kinds of arguments, no JSON, a verb that does not exist.
    scene.hostile.push_body(json.dumps([[target_id], seen, {}]).encode())
    scene.hostile.push_body(b"replay it")
    push(seen, task="taskyard.ops.replay_all")
    # What ends before a handler runs.
    push(wanted, expires=(datetime.now(UTC) - timedelta(hours=1)).isoformat())
    # And two more: the credential as a header, where a worker keeps its own; a broadcast.
    push(wanted, **{CREDENTIAL: text})
    scene.hostile.broadcast(scene.harness.yard.app, {"subject": scene.keeper.subject})

    expected = Counter(
        {
            (REPLAY_TASK, "unsigned"): 2,
            (REPLAY_TASK, "unknown_key"): 1,
            (REPLAY_TASK, "bad_signature"): 1,
            (REPLAY_TASK, "nonce_used"): 1,
            (REPLAY_TASK, "wrong_target"): 1,
            (REPLAY_TASK, "wrong_arguments"): 1,
            (REPLAY_TASK, "malformed"): 1,
            (REPLAY_TASK, "wrong_verb"): 1,
            (REPLAY_TASK, "wrong_audience"): 1,
            (REPLAY_TASK, "validation_error"): 1,
            (REPLAY_TASK, "undecodable"): 1,
            (REPLAY_TASK, "expired"): 2,
            ("taskyard.ops.replay_all", "unknown_task"): 1,
            ("broadcast", "unsigned"): 1,
        }
    )
    eventually(
        lambda: scene.denials() == expected,
        "each denied and counted once",
        within_s=SOON_S,
        why=lambda: f"{scene.denials()}\n{scene.worker.log[-3000:]}",
    )
    for job_id in scene.hostile.sent:
        scene.harness.await_state(scene.harness.yard.job(job_id), State.DEAD_LETTERED)
    assert scene.denials() == expected
    assert scene.outcomes(target_id) == []
    eventually(lambda: len(scene.outcomes(seen_id)) == 2, "the relay's answer")
    assert scene.outcomes(seen_id) == ["requested", "applied"]
    with scene.database.connect() as connection:
        status = select(LETTERS.c.status).where(LETTERS.c.id == uuid.UUID(target_id))
        assert connection.scalar(status) == "pending"


def test_a_client_that_only_publishes_can_write_no_record_stream_or_nonce(scene: Scene) -> None:
    if scene.hostile.rabbit:
        pytest.skip("the rights of a Redis client")
    namespace = scene.settings.namespace
    for command in (
        ("XADD", f"{namespace}:lifecycle", "*", "verb", "whoami"),
        ("HSET", f"{namespace}:job:x", "state", "completed"),
        ("LRANGE", scene.hostile.queue, "0", "-1"),
        ("SUBSCRIBE", f"{namespace}:x"),
    ):
        with pytest.raises(NoPermissionError):
            scene.hostile.client.execute_command(*command)
