"""A message with a date, as a worker's main loop puts it off."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import pytest
from celery import Celery
from kombu import Queue

from servers import Servers
from support.kill_switches import turn_on
from support.legacy_fixtures import BROKERS
from taskyard.install import install
from taskyard.install.defer_eta import put_off
from taskyard.install.installed_context import InstalledContext
from taskyard.jobs.states import State
from taskyard.settings import Settings
from taskyard.switches import Mode, SwitchField

LATER_S = 3600


@pytest.fixture(params=BROKERS)
def yard(
    request: pytest.FixtureRequest, servers: Servers, settings: Settings
) -> Iterator[InstalledContext]:
    url = settings.need_redis_url()
    broker = url if request.param == "redis" else servers.rabbitmq_url()
    app = Celery("dated", broker=broker, backend=url, set_as_current=False)
    app.conf.task_default_queue = f"{settings.namespace}.dated"
    install(app, settings=settings.model_copy(update={"replicas": 1}))
    yield app.taskyard
    client = app.taskyard.records.client
    client.delete(*client.scan_iter(f"{settings.namespace}*"), "nothing")
    client.close()
    app.close()


def put_off_one(yard: InstalledContext, job_id: str) -> None:
    """Publish a message with a date, take it from its queue and put it off."""
    queue = yard.app.conf.task_default_queue
    yard.app.send_task("pay", task_id=job_id, countdown=LATER_S)
    with yard.app.connection_for_read() as connection:
        message = Queue(queue)(connection.default_channel).get()
        assert message is not None
        put_off(yard, message, yard.records.now_us() + LATER_S * 1_000_000)
        message.ack()


def test_a_new_life_leaves_the_result_that_the_app_itself_keeps(yard: InstalledContext) -> None:
    job_id = f"{yard.settings.namespace}-pay"
    key = f"celery-task-meta-{job_id}"
    yard.records.client.set(key, "the app's")
    put_off_one(yard, job_id)
    assert yard.records.read(job_id).state is State.ACCEPTED
    assert yard.records.client.getdel(key) == b"the app's"


def test_a_kill_switch_refuses_no_message_that_the_app_has_published(
    yard: InstalledContext,
) -> None:
    turn_on(yard.records.client, yard.settings.namespace, SwitchField.kill("all"), mode=Mode.HOLD)
    job_id = f"{yard.settings.namespace}-pay"
    put_off_one(yard, job_id)
    assert yard.records.read(job_id).state is State.ACCEPTED


def test_a_workers_main_loop_waits_for_no_replica(yard: InstalledContext) -> None:
    started = monotonic()
    put_off_one(yard, "pay")
    assert monotonic() - started < yard.settings.publish_timeout_s
