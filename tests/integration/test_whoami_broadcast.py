"""`taskyard whoami --workers`: a signed broadcast reaches every worker, and is audited for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from servers import Servers
from support.listening import await_listening
from support.mirror import mirroring
from support.shell import Shell
from support.signing import Keeper
from support.waiting import eventually
from support.worker import HANDLERS, Worker, environment_of
from support.yard import ServerHarness, fresh_settings
from taskyard.access.broadcast_calls import WHOAMI, call_of_broadcast
from taskyard.access.credential import sign
from taskyard.audit import list_unverified
from taskyard.control.authenticate_operator import local_identity
from taskyard.control.change_key_ring import change_ring
from taskyard.database.tables import AUDIT, UNVERIFIED
from taskyard.settings import Settings
from taskyard.wire.credential_argument import CREDENTIAL

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

NAMES = ("first", "second", "third")
ME = local_identity(Settings(trust_local=True)).subject


class Scene:
    """Three workers of one fleet, and a mirror."""

    def __init__(self, settings: Settings, keeper: Keeper, database: Engine, folder: Path):
        self.settings, self.keeper, self.database, self.folder = settings, keeper, database, folder
        self.workers: list[Worker] = []
        self.harness = ServerHarness(settings)

    def signed(self, *workers: str, ago: timedelta = timedelta(0)) -> str:
        return sign(
            self.keeper.key,
            self.keeper.identity,
            call_of_broadcast(self.settings.namespace, WHOAMI, workers),
            now=datetime.now(UTC) - ago,
            life=timedelta(minutes=10),
        )

    def broadcast(
        self, limit: int = 3, to: list[str] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """The answers by worker. On Redis several answers at once cost the whole time to wait."""
        app = self.harness.yard.app
        with app.connection_for_write() as connection:
            replies = app.control.broadcast(
                WHOAMI,
                arguments=arguments,
                destination=to,
                reply=True,
                timeout=5,
                limit=limit,
                connection=connection,
            )
        return {name: answer for reply in replies for name, answer in reply.items()}

    def broadcast_raw(self, arguments: object) -> None:
        """Send arguments that no Celery client sends, to all workers, without an answer."""
        mailbox = self.harness.yard.app.control.mailbox
        with self.harness.yard.app.connection_for_write() as connection:
            mailbox(connection)._publish(WHOAMI, arguments)

    def rows(self) -> list[dict[str, Any]]:
        query = select(AUDIT).where(AUDIT.c.action_type == "whoami").order_by(AUDIT.c.id)
        with self.database.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def await_mirrored(self) -> None:
        eventually(lambda: not self.harness.events(), "all verbs in Postgres")


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def scene(
    request: pytest.FixtureRequest,
    servers: Servers,
    database: Engine,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    url = servers.valkey_url()
    folder = tmp_path_factory.mktemp("whoami")
    keeper = Keeper(folder / "keys", more_subjects=(ME,))
    settings = fresh_settings(
        url,
        broker_url=url if request.param == "redis" else servers.rabbitmq_url(),
        public_keys=keeper.ring,
    )
    made = Scene(settings, keeper, database, folder)
    with ExitStack() as running:
        for name in NAMES:
            worker = Worker(
                settings,
                folder / name,
                queues=("exec",),
                modules=(HANDLERS,),
                name=name,
                options=("--loglevel", "DEBUG", "--pool", "solo"),
            )
            made.workers.append(running.enter_context(worker.launch()))
        for worker in made.workers:
            worker.await_log(" ready.")
        await_listening(made.harness.yard.app, NAMES, lambda: made.workers[0].log)
        running.enter_context(mirroring(settings, database.url.render_as_string(False)))
        yield made
        made.harness.close()


def test_a_signed_broadcast_reaches_all_three_workers_and_each_call_is_audited(
    scene: Scene,
) -> None:
    before, credential = len(scene.rows()), scene.signed()
    answers = scene.broadcast(**{CREDENTIAL: credential})
    assert sorted(name.split("@")[0] for name in answers) == sorted(NAMES)
    for name, answer in answers.items():
        assert answer == {
            "worker": name,
            "subject": "anna@example.com",
            "role": "operator",
            "via": f"key:{scene.keeper.key.key_id}",
        }
    eventually(lambda: len(scene.rows()) == before + 3, "three rows")
    # A copy is the same call, for workers and mirror alike.
    assert scene.broadcast(**{CREDENTIAL: credential}) == answers
    scene.await_mirrored()
    rows = scene.rows()[before:]
    assert {row["detail"]["worker"] for row in rows} == set(answers)
    assert {(row["operator_identity"], row["outcome"]) for row in rows} == {
        ("anna@example.com", "applied")
    }
    assert len(rows) == len({row["request_id"] for row in rows}) == 3
    secret = credential.split(".")[3]
    assert secret not in str(rows)
    assert not any(secret in worker.log for worker in scene.workers)


def test_broadcasts_that_do_not_hold_are_denied_by_each_worker_and_counted_once(
    scene: Scene,
) -> None:
    with scene.database.begin() as connection:
        connection.execute(UNVERIFIED.delete())
    before = len(scene.rows())
    everywhere = scene.broadcast()
    assert [answer["denied"] for answer in everywhere.values()] == ["unsigned"] * 3
    one = [next(iter(everywhere))]
    for arguments, code in (
        ({CREDENTIAL: "v1.x"}, "malformed"),
        ({CREDENTIAL: scene.signed("nobody@host")}, "wrong_target"),
        ({CREDENTIAL: scene.signed(ago=timedelta(minutes=16))}, "expired"),
    ):
        [answer] = scene.broadcast(1, one, **arguments).values()
        assert answer["denied"] == code

    def counts() -> dict[str, int]:
        return {row["why"]: row["count"] for row in list_unverified(scene.database, None, 100)}

    # With these arguments kombu cannot call the command at all.
    for arguments in (["v1.x"], "v1.x", {"state": 1}):
        scene.broadcast_raw(arguments)
    expected = {"unsigned": 2, "malformed": 3, "wrong_target": 1, "expired": 1}
    eventually(lambda: counts() == expected, "all denials counted", why=lambda: str(counts()))
    assert len(scene.rows()) == before


def test_the_mirror_believes_no_entry_of_the_stream_without_its_credential(scene: Scene) -> None:
    with scene.database.begin() as connection:
        connection.execute(UNVERIFIED.delete())
    before = len(scene.rows())
    now_us = int(datetime.now(UTC).timestamp() * 1_000_000)
    forged = {"verb": "whoami", "worker": "w@host", "at": now_us, "code": ""}
    for fields in (
        {**forged, "credential": "", "subject": "root@example.com"},
        {**forged, "credential": scene.signed()[:-4] + "AAAA"},
        {**forged, "credential": scene.signed("other@host")},
        {**forged, "verb": "purge_queue", "credential": scene.signed()},
        {**forged, "verb": "none", "credential": scene.signed()},
        {**forged, "worker": "a\x00", "credential": scene.signed()},
    ):
        scene.harness.redis.xadd(f"{scene.settings.namespace}:lifecycle", fields)

    def counts() -> dict[str, int]:
        return {row["why"]: row["count"] for row in list_unverified(scene.database, None, 100)}

    expected = {
        "unsigned": 1, "bad_signature": 1, "wrong_target": 1, "wrong_verb": 1, "malformed": 2
    }  # fmt: skip
    eventually(lambda: counts() == expected, "all denials counted", why=lambda: str(counts()))
    assert len(scene.rows()) == before


def test_the_command_shows_this_shell_and_every_worker(scene: Scene, tmp_path: Path) -> None:
    shell = Shell(
        tmp_path,
        {
            **environment_of(scene.settings),
            "TASKYARD_TRUST_LOCAL": "1",
            "TASKYARD_SIGNING_KEY": str(scene.keeper.pem),
        },
    )
    here = shell.run("whoami", "--json").document
    assert (here["subject"], here["role"], here["via"]) == (ME, "admin", "local")
    everywhere = shell.run("whoami", "--workers", "--json")
    assert everywhere.code == 0, everywhere.err
    assert [answer["subject"] for answer in everywhere.document] == [ME] * 3
    shown = shell.run("whoami", "--workers")
    assert all(name in shown.out for name in NAMES)
    assert shell.run("whoami", TASKYARD_TRUST_LOCAL="0").code == 6
    assert shell.run("whoami", "--workers", TASKYARD_SIGNING_KEY="").code == 2


# A worker looks at its key ring every 5 s.
def test_a_running_worker_takes_both_keys_of_a_rotation_and_then_the_new_one_alone(
    database: Engine, servers: Servers, tmp_path: Path
) -> None:
    old, new = Keeper(tmp_path / "old"), Keeper(tmp_path / "new")
    settings = fresh_settings(servers.valkey_url(), public_keys=old.ring)
    with Worker(settings, tmp_path, queues=("exec",), options=("--pool", "solo")).start():
        scenes = [Scene(settings, keeper, database, tmp_path) for keeper in (old, new)]

        def answers() -> list[str]:
            answers = [one.broadcast(1, **{CREDENTIAL: one.signed()}) for one in scenes]
            found = [next(iter(answer.values())) for answer in answers]
            return [answer.get("denied", "taken") for answer in found]

        assert answers() == ["taken", "unknown_key"]
        change_ring(old.ring, lambda ring: ring.having(new.public))
        eventually(lambda: answers() == ["taken", "taken"], "the overlap")
        ended = old.public.model_copy(update={"not_after": datetime.now(UTC)})
        change_ring(old.ring, lambda ring: ring.having(ended))
        eventually(lambda: answers() == ["retired_key", "taken"], "the end of the old key")
        for one in scenes:
            one.harness.close()


def test_a_worker_without_a_key_ring_denies(
    database: Engine, servers: Servers, tmp_path: Path
) -> None:
    settings = fresh_settings(servers.valkey_url())
    with Worker(settings, tmp_path, queues=("exec",), options=("--pool", "solo")).start():
        lonely = Scene(settings, Keeper(tmp_path / "keys"), database, tmp_path)
        [answer] = lonely.broadcast(limit=1, **{CREDENTIAL: lonely.signed()}).values()
        lonely.harness.close()
    assert answer["denied"] == "unknown_key"
