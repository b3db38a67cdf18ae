"""With `admit=True` a task has its record before a worker sees it; its producer notices nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain
from celery.exceptions import OperationalError

from servers import Servers, free_port
from support.kill_switches import turn_on
from support.legacy import Legacy
from support.legacy_fixtures import BROKERS, legacy_on
from support.waiting import SOON_S, eventually
from support.yard import fresh_settings
from taskyard.install import install
from taskyard.jobs.states import State
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.store import connect
from taskyard.switches import Mode, SwitchField


@pytest.fixture(params=BROKERS)
def app(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[Legacy]:
    with legacy_on(request.param, servers, tmp_path, admit=True) as legacy:
        yield legacy


def test_a_published_task_has_its_record_before_any_worker(app: Legacy) -> None:
    with app.producer() as tasks:
        plain = tasks.add.delay(1, 2)
        dated = tasks.add.apply_async((1, 2), countdown=2)
        routed = tasks.add.apply_async((1, 2), queue=f"{app.prefix}.orders")
        alone = tasks.left_alone.delay()
        for result in (plain, dated, routed):
            record = app.await_state(result.id, "accepted")
            assert (record["type"], record["published"]) == ("legacy.add", "1")
        queues = [app.record(result.id)["queue"] for result in (plain, routed)]
        assert queues == [f"{app.prefix}.work", f"{app.prefix}.orders"]
        assert app.record(alone.id) == {}
        epoch = app.record(plain.id)["epoch"]
        app.worker()
        assert [result.get(timeout=SOON_S) for result in (plain, dated, routed)] == [3, 3, 3]
        assert app.await_state(plain.id, "completed")["epoch"] == epoch
        assert app.events(plain.id) == ["admit", "begin", "complete"]


def test_what_a_worker_publishes_has_its_record_too(app: Legacy) -> None:
    app.worker()
    with app.producer() as tasks:
        gate = f"g-{app.prefix}"
        result = chain(tasks.once.si(), tasks.gated.si(gate)).delay()
        app.await_notes(f"{result.id}:runs", 1)
        app.open_gate(gate)
        assert result.get(timeout=SOON_S) == 1
        app.await_state(result.id, "completed")
        # The worker may have begun it before the record was written, which is then left alone.
        assert app.events(result.id)[-2:] == ["begin", "complete"]
        retried = tasks.insist.delay(3)
        assert retried.get(timeout=SOON_S) == [3, "xx", 2]
        app.await_state(retried.id, "completed")
        assert app.events(retried.id).count("admit") <= 1


def test_an_ended_id_that_is_published_again_begins_no_other_life(app: Legacy) -> None:
    app.worker()
    with app.producer() as tasks:
        first = tasks.once.apply_async(task_id=f"{app.prefix}-twice")
        assert first.get(timeout=SOON_S) == 1
        epoch = app.await_state(first.id, "completed")["epoch"]
        tasks.once.apply_async(task_id=first.id)
        after = tasks.once.delay()
        assert after.get(timeout=SOON_S) == 1
        app.await_state(after.id, "completed")
        assert app.record(first.id)["epoch"] == epoch
        assert app.notes(f"{first.id}:runs") == ["1"]


def alone(broker: str, settings: Settings) -> Any:
    """An app in this process, with a task that nobody runs."""
    app = Celery("alone", broker=broker, set_as_current=False)
    app.conf.update(task_publish_retry=False, broker_transport_options={"socket_timeout": 2})
    install(app, settings=settings, admit=True)

    @app.task(name="alone.pay", shared=False)
    def pay() -> None:
        return None

    return app


def test_a_publication_that_fails_raises_as_ever_and_leaves_a_trace(settings: Settings) -> None:
    app = alone(f"redis://127.0.0.1:{free_port()}/0", settings)
    with pytest.raises(OperationalError):
        app.tasks["alone.pay"].apply_async(task_id="lost")
    records = Records(connect(settings.need_redis_url()), settings)
    eventually(lambda: records.read("lost").state is State.ACCEPTED, "the trace")
    assert records.read("lost").fields["published"] == "0"
    for key in list(records.client.scan_iter(f"{settings.namespace}*")):
        records.client.delete(key)
    records.client.close()
    app.close()


def test_a_producer_does_not_notice_that_the_records_are_away(
    servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    url = servers.valkey_url()
    away = f"redis://127.0.0.1:{free_port()}/0"
    app = alone(url, fresh_settings(away, broker_url=url))
    app.conf.task_default_queue = "alone"
    assert app.tasks["alone.pay"].delay().id
    eventually(lambda: "1 published tasks have no record yet" in caplog.text, "a word in the log")
    with connect(url) as client:
        client.delete("alone")
    app.close()


def test_a_kill_switch_refuses_nothing_that_an_app_publishes_itself(settings: Settings) -> None:
    """Its record is made too; a worker holds the job."""
    url = settings.need_redis_url()
    app = alone(url, settings)
    app.conf.task_default_queue = f"{settings.namespace}.alone"
    records = Records(connect(url), settings)
    turn_on(records.client, settings.namespace, SwitchField.kill("all"), mode=Mode.HOLD)
    sent = app.tasks["alone.pay"].apply_async(countdown=60)
    eventually(lambda: records.read(sent.id).state is State.ACCEPTED, "the record")
    assert records.client.llen(app.conf.task_default_queue) == 1
    records.client.delete(*records.client.scan_iter(f"{settings.namespace}*"))
    records.client.close()
    app.close()


def test_a_script_that_only_publishes_leaves_its_record(servers: Servers, tmp_path: Path) -> None:
    code = "from support.legacy_app.tasks import add; add.apply_async((1, 2), task_id='script')"
    with legacy_on("redis", servers, tmp_path, admit=True) as app:
        subprocess.run([sys.executable, "-c", code], env=app.environment(), check=True, timeout=60)
        assert app.record("script")["state"] == "accepted"
