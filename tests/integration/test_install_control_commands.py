"""Celery's control commands to workers of an installed app: verbs on protected tasks alone."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.app.control import flatten_reply
from celery.exceptions import TaskRevokedError
from sqlalchemy import Engine, select

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import TRANSPORTS, legacy_on
from support.legacy_operator import busy_processes
from support.listening import await_listening
from support.mirror import mirroring
from support.waiting import SOON_S, eventually
from taskyard.access.broadcast_calls import UNVERIFIED
from taskyard.database.tables import AUDIT

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

NAMES = ("first", "second", "third")


class Shop:
    """An app with three workers of two processes each, and a mirror."""

    def __init__(self, app: Legacy, tasks: Any, database: Engine) -> None:
        self.app, self.tasks, self.database = app, tasks, database

    def send(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The replies by worker. On Redis several at once cost the whole time to wait."""
        celery = self.tasks.gated.app
        with celery.connection_for_write() as connection:
            replies = celery.control.broadcast(
                command,
                arguments=arguments,
                reply=True,
                limit=len(NAMES),
                timeout=3,
                connection=connection,
            )
        return dict(flatten_reply(replies))

    def rows(self) -> list[dict[str, Any]]:
        query = select(AUDIT).order_by(AUDIT.c.id)
        with self.database.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def pair(self, before: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The two rows of the one command since then."""
        stream = f"{self.app.settings.namespace}:lifecycle"
        eventually(
            lambda: len(self.rows()) >= before + 2 and not self.app.redis.xlen(stream),
            "a request and an outcome",
            why=lambda: f"{self.rows()[before:]} {self.app.logs()}",
        )
        request, outcome = self.rows()[before:]
        assert (request["outcome"], request["request_id"]) == ("requested", outcome["request_id"])
        return request, outcome


@pytest.fixture(scope="module", params=TRANSPORTS)
def shop(
    request: pytest.FixtureRequest,
    servers: Servers,
    database: Engine,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    with legacy_on(request.param, servers, tmp_path_factory.mktemp("shop")) as app:
        for name in NAMES:
            app.worker(name)
        with app.producer() as tasks, mirroring(app.settings, database_url):
            await_listening(tasks.gated.app, [f"{name}-{app.prefix}" for name in NAMES], app.logs)
            yield Shop(app, tasks, database)


@pytest.fixture
def busy(shop: Shop) -> Iterator[str]:
    with busy_processes(shop.app, shop.tasks, 2 * len(NAMES)) as gate:
        yield gate


def test_a_protected_task_without_a_record_is_cancelled_in_one_audit_pair(
    shop: Shop, busy: str
) -> None:
    before, waiting = len(shop.rows()), shop.tasks.once.delay()
    replies = shop.send("revoke", task_id=waiting.id)
    assert len(replies) == len(NAMES)
    assert all("ok" in reply for reply in replies.values()), replies
    request, outcome = shop.pair(before)
    assert (request["target_request_id"], request["operator_identity"]) == (waiting.id, UNVERIFIED)
    assert (outcome["outcome"], outcome["detail"]["jobs"]) == ("applied", {waiting.id: "cancelled"})
    shop.app.open_gate(busy, 2 * len(NAMES))
    with pytest.raises(TaskRevokedError):
        waiting.get(timeout=SOON_S)
    assert shop.app.await_notes(f"{waiting.id}:signals", 1) == ["revoked"]
    assert shop.app.notes(f"{waiting.id}:runs") == []


def test_a_task_that_is_not_protected_is_revoked_as_by_celery_alone(shop: Shop, busy: str) -> None:
    before = len(shop.rows())
    waiting, watched = shop.tasks.left_alone.delay(), shop.tasks.watched.delay()
    shop.send("revoke", task_id=[waiting.id, watched.id])
    _, outcome = shop.pair(before)
    assert outcome["outcome"] == "applied"
    remembered = shop.send("revoked")
    assert all(waiting.id in ids for ids in remembered.values())
    shop.app.open_gate(busy, 2 * len(NAMES))
    for result in (waiting, watched):
        with pytest.raises(TaskRevokedError):
            result.get(timeout=SOON_S)
        assert shop.app.notes(f"{result.id}:runs") == []


def test_a_running_protected_task_is_aborted(shop: Shop) -> None:
    before, gate = len(shop.rows()), uuid.uuid4().hex
    result = shop.tasks.gated.delay(gate)
    shop.app.await_notes(f"{result.id}:runs", 1)
    result.revoke(terminate=True)
    shop.app.await_state(result.id, "aborted")
    request, outcome = shop.pair(before)
    assert (request["action_type"], outcome["outcome"]) == ("abort_request", "applied")
    # Its attempt is stopped: the gate stays closed.
    eventually(lambda: result.state == "REVOKED", "the app reports it", why=shop.app.logs)


def test_a_revoked_stamp_ends_protected_tasks_by_their_records_and_others_as_celery_does(
    shop: Shop, busy: str
) -> None:
    before, wave = len(shop.rows()), uuid.uuid4().hex
    stamps = {"stamped_headers": ["wave"], "stamps": {"wave": [wave]}}
    early = shop.tasks.once.apply_async(headers=stamps)
    shop.send("revoke_by_stamped_headers", headers={"wave": [wave]})
    late = shop.tasks.once.apply_async(headers=stamps)
    watched = shop.tasks.watched.apply_async(headers=stamps)
    plain = shop.tasks.once.delay()
    _, outcome = shop.pair(before)
    assert outcome["outcome"] == "applied"
    shop.app.open_gate(busy, 2 * len(NAMES))
    assert plain.get(timeout=SOON_S) == 1
    for result in (early, late, watched):
        with pytest.raises(TaskRevokedError):
            result.get(timeout=SOON_S)
        assert shop.app.notes(f"{result.id}:runs") == []
    assert {shop.app.record(result.id)["state"] for result in (early, late)} == {"cancelled"}


def test_a_running_protected_task_with_a_revoked_stamp_is_aborted(shop: Shop) -> None:
    before, wave = len(shop.rows()), uuid.uuid4().hex
    stamps = {"stamped_headers": ["wave"], "stamps": {"wave": [wave]}}
    result = shop.tasks.gated.apply_async(("never-opened",), headers=stamps)
    shop.app.await_notes(f"{result.id}:runs", 1)
    shop.send("revoke_by_stamped_headers", headers={"wave": [wave]}, terminate=True)
    shop.app.await_state(result.id, "aborted")
    eventually(lambda: result.state == "REVOKED", "the app reports it", why=shop.app.logs)
    request, outcome = shop.pair(before)
    assert (request["action_type"], outcome["outcome"]) == ("abort_request", "applied")


def test_what_a_starting_worker_is_told_of_revoked_ids_stops_no_protected_task(shop: Shop) -> None:
    task_id, other = str(uuid.uuid4()), str(uuid.uuid4())
    shop.send("hello", from_node="stranger@host", revoked={task_id: 0.0, other: 0.0})
    assert shop.tasks.add.apply_async((3, 4), task_id=task_id).get(timeout=SOON_S) == 7
    with pytest.raises(TaskRevokedError):
        shop.tasks.left_alone.apply_async(task_id=other).get(timeout=SOON_S)


def test_a_command_that_changes_a_worker_is_one_audit_pair(shop: Shop) -> None:
    before = len(shop.rows())
    shop.send("rate_limit", task_name="legacy.add", rate_limit="1000/s")
    request, outcome = shop.pair(before)
    assert (request["action_type"], outcome["outcome"]) == ("flower_set_rate_limit", "applied")


# -- other modes and pools ---------------------------------------------------------------------


def test_an_app_that_is_only_observed_revokes_as_celery_does_and_is_audited(
    servers: Servers, database: Engine, database_url: str, tmp_path: Path
) -> None:
    with (
        legacy_on("redis", servers, tmp_path, "observe") as app,
        app.producer() as tasks,
        mirroring(app.settings, database_url),
    ):
        app.worker()
        shop, gate = Shop(app, tasks, database), uuid.uuid4().hex
        held = [tasks.gated.delay(gate) for _ in range(2)]
        for one in held:
            app.await_notes(f"{one.id}:runs", 1)
        before, waiting = len(shop.rows()), tasks.once.delay()
        waiting.revoke()
        request, outcome = shop.pair(before)
        assert (request["target_request_id"], outcome["outcome"]) == (waiting.id, "applied")
        held[0].revoke(terminate=True, signal="SIGKILL")
        eventually(lambda: held[0].state == "REVOKED", "Celery's own end", why=app.logs)
        app.open_gate(gate)
        with pytest.raises(TaskRevokedError):
            waiting.get(timeout=SOON_S)
        assert app.notes(f"{waiting.id}:runs") == []


def test_a_pool_of_greenlets_drops_what_is_no_command(servers: Servers, tmp_path: Path) -> None:
    with legacy_on("redis", servers, tmp_path) as app, app.producer() as tasks:
        worker = app.worker("green", None, "-P", "gevent")
        await_listening(tasks.gated.app, [f"green-{app.prefix}"], app.logs)
        control = tasks.gated.app.control
        with tasks.gated.app.connection_for_write() as connection:
            bound = control.mailbox(connection)
            with bound.producer_or_acquire(channel=connection.default_channel) as producer:
                options = {"exchange": bound.exchange.name, "declare": [bound.exchange]}
                producer.publish([], serializer="json", **options)
                kind = {"content_type": "application/json", "content_encoding": "utf-8"}
                producer.publish(b"{", **kind, **options)
            # Apps without a namespace share their broadcasts with all others of a broker.
            [reply] = control.broadcast(
                "ping",
                pattern=f"green-{app.prefix}@*",
                matcher="glob",
                reply=True,
                limit=1,
                timeout=10,
                connection=connection,
            )
        assert list(reply.values()) == [{"ok": "pong"}]
        assert worker.log.count("a control message is dropped") == 2
        assert "Traceback" not in worker.log
