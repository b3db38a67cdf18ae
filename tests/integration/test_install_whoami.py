"""A worker of an installed app verifies a signed broadcast as one of our own does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from servers import Servers
from support.legacy_fixtures import legacy_on
from support.listening import await_listening
from support.signing import Keeper
from support.waiting import eventually
from taskyard.access.broadcast_calls import WHOAMI, call_of_broadcast
from taskyard.access.credential import sign
from taskyard.wire.credential_argument import CREDENTIAL


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_an_installed_apps_worker_answers_what_is_signed_also_after_a_kill_and_denies_the_rest(
    servers: Servers, tmp_path: Path, broker: str
) -> None:
    keeper = Keeper(tmp_path / "keys")
    with legacy_on(broker, servers, tmp_path, public_keys=keeper.ring) as app:
        worker = app.worker("worker", None, "--loglevel", "DEBUG")
        credential = sign(
            keeper.key,
            keeper.identity,
            call_of_broadcast(app.settings.namespace, WHOAMI),
            now=datetime.now(UTC),
            life=timedelta(minutes=10),
        )
        with app.producer() as tasks:
            asking = tasks.gated.app

            def ask(arguments: dict[str, Any]) -> Any:
                # Of its own: one of kombu's pool may be of before a restart of RabbitMQ.
                with asking.connection_for_write() as connection:
                    [reply] = asking.control.broadcast(
                        WHOAMI,
                        arguments=arguments,
                        connection=connection,
                        reply=True,
                        limit=1,
                        timeout=20,
                    )
                return next(iter(reply.values()))

            names = [f"worker-{app.prefix}"]
            await_listening(asking, names, app.logs)
            answer = ask({CREDENTIAL: credential})
            assert answer["subject"] == keeper.subject
            assert ask({})["denied"] == "unsigned"
            worker.kill()
            worker.start()
            worker.await_log(" ready.", times=2)
            await_listening(asking, names, app.logs)
            assert ask({CREDENTIAL: credential}) == answer
        assert WHOAMI in worker.log
        assert credential.split(".")[3] not in worker.log
        entries = app.redis.xrange(f"{app.settings.namespace}:lifecycle")
        verbs = [fields[b"code"] for _, fields in entries if b"verb" in fields]
        assert verbs == [b"", b"unsigned"]


def test_an_installed_apps_worker_with_an_operators_credential_does_not_start(
    servers: Servers, tmp_path: Path
) -> None:
    key = Keeper(tmp_path / "keys").pem
    with legacy_on("redis", servers, tmp_path, signing_key=key) as app:
        worker = app.starting("worker", None)
        eventually(lambda: worker.ended, "the worker's end", why=lambda: worker.log)
        assert "a worker must not hold an operator's credential, got: signing_key." in worker.log
        assert "Traceback" not in worker.log
