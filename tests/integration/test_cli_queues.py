"""`taskyard queues list`, and what is said of a job that waits where no worker comes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from kombu import Connection

from servers import Servers
from support.shell import Shell, connected_shell
from support.yard import list_key
from taskyard.broker import connection, own_layout
from taskyard.client import Taskyard
from taskyard.inspection.queue_counts import QueueState, look
from taskyard.settings import Settings, load
from taskyard.store import connect
from taskyard.transport.owner_descriptions import describe

BUTTON = {"html": "<button>Buy</button>"}


@pytest.fixture(params=["valkey_url", "rabbitmq_url"])
def shell(
    request: pytest.FixtureRequest, tmp_path: Path, servers: Servers, database_url: str
) -> Shell:
    broker: Callable[[], str] = getattr(servers, request.param)
    return connected_shell(tmp_path, servers, database_url, broker_url=broker())


@pytest.fixture
def settings(shell: Shell) -> Settings:
    return load({**shell.variables, "TASKYARD_BUILTIN_JOBS": "1"}, shell.folder).settings


@pytest.fixture
def waiting(settings: Settings) -> Iterator[str]:
    """The id of a job that waits in `locator`."""
    with Taskyard(settings) as yard:
        yield yard.enqueue("batch_locator_generation", BUTTON).job_id


@pytest.fixture
def consumer(settings: Settings) -> Iterator[Callable[[str], None]]:
    """Consumes a queue, as far as an operator can see."""
    broker: Connection = connection(settings)

    def consume(queue: str) -> None:
        name = settings.broker_name(queue)
        if settings.need_broker_url().startswith("amqp"):
            broker.default_channel.basic_consume(name, no_ack=False, callback=lambda _: None)
        else:
            beat(settings, name)

    yield consume
    broker.release()


def beat(settings: Settings, queue: str) -> None:
    """A live worker's heartbeat."""
    description = describe("unacked", "unacked_index", "~", [0], [queue])
    with connect(settings.need_redis_url()) as client:
        seconds, micros = client.time()
        heartbeat = f"{seconds * 1_000_000 + micros} {description}"
        client.hset(f"{settings.namespace}:heartbeats", "someone", heartbeat)


def test_a_job_without_a_worker_is_told_with_the_command_that_starts_one(
    shell: Shell, waiting: str
) -> None:
    ran = shell.run("jobs", "show", waiting)
    document = shell.run("jobs", "show", waiting, "--json").document

    assert "workers   none: no worker consumes this queue\n" in ran.out
    assert "next      taskyard worker --pool locator\n" in ran.out
    assert (document["workers"], document["next"]) == (0, "taskyard worker --pool locator")


def test_who_waits_for_it_is_told_before(shell: Shell, waiting: str) -> None:
    said = (
        f"no worker consumes queue 'locator', so job {waiting} waits. "
        "Start one: taskyard worker --pool locator\n"
    )

    ran = shell.run("jobs", "wait", waiting, "--timeout", "0.1")

    assert ran.code == 7
    assert ran.err.startswith(said)


def test_enqueue_with_wait_tells_it_too(shell: Shell) -> None:
    words = ("jobs", "enqueue", "batch_locator_generation", '{"html": "<a>a</a>"}')

    ran = shell.run(*words, "--wait", "--timeout", "0.1")

    assert ran.code == 7
    assert "Start one: taskyard worker --pool locator\n" in ran.err


def test_with_a_consumer_it_waits_for_its_turn(
    shell: Shell, waiting: str, consumer: Callable[[str], None]
) -> None:
    consumer("locator")

    ran = shell.run("jobs", "show", waiting)

    assert "workers   1 consumes this queue\n" in ran.out
    assert f"next      taskyard jobs wait {waiting}\n" in ran.out


def test_the_list_counts_messages_and_consumers(shell: Shell, waiting: str) -> None:
    ran = shell.run("queues", "list")
    rows = {row["queue"]: row for row in shell.run("queues", "list", "--json").document}

    assert ran.out.splitlines()[0].split() == [
        "queue",
        "waiting",
        "workers",
        "priorities",
        "of",
        "switches",
    ]
    assert "locator  1        0        1-3         settings\n" in ran.out
    assert "no worker consumes queue 'plan'. Start one: taskyard worker --pool plan\n" in ran.err
    ours = {"app": False, "told_at": None, "switches": []}
    assert rows["locator"] == {"queue": "locator", "waiting": 1, "consumers": 0, **ours}
    assert rows["ops"]["waiting"] == 0


def test_check_warns_of_the_queues_that_nobody_consumes(
    shell: Shell, waiting: str, consumer: Callable[[str], None]
) -> None:
    with_all = shell.run("check")
    consumer("locator")
    with_one = shell.run("check")

    assert "no worker consumes any queue (plan, exec, locator, ops), where 1 waits." in with_all.out
    assert "✓ workers    consume locator\n" in with_one.out
    assert "! workers    no worker consumes queue 'ops'. Start one: taskyard worker" in with_one.out
    assert (with_all.code, with_one.code) == (0, 0)


@pytest.fixture
def on_redis(servers: Servers) -> Settings:
    url = servers.valkey_url()
    return Settings(broker_url=url, redis_url=url, namespace=f"t{uuid.uuid4().hex[:10]}")


def test_a_stock_worker_that_is_too_busy_to_answer_is_unknown_and_not_none(
    on_redis: Settings,
) -> None:
    """It has no heartbeat either; all that is known of it is that it hears what is broadcast."""
    (before,) = look(on_redis, ["ops"])
    with connect(on_redis.need_broker_url()) as client, client.pubsub() as busy:
        database = client.connection_pool.connection_kwargs.get("db", 0)
        prefix = own_layout(on_redis).prefix
        busy.psubscribe(f"{prefix}/{database}.{on_redis.broker_name('celery')}.pidbox")
        assert busy.get_message(timeout=5) is not None
        (state,) = look(on_redis, ["ops"])

    assert before.unserved
    assert state == QueueState("ops", waiting=0, consumers=None)


def test_a_queue_that_may_not_be_read_is_unknown_and_one_of_another_type_is_empty(
    on_redis: Settings,
) -> None:
    url = urlsplit(on_redis.need_broker_url())
    barred = url._replace(netloc=f"barred:pw@{url.hostname}:{url.port}").geturl()
    with connect(on_redis.need_broker_url()) as client:
        client.set(list_key(on_redis, "ops"), "no list")
        beat(on_redis, on_redis.broker_name("ops"))  # so that nobody has to be asked
        may = ["resetkeys", "~*:heartbeats", "&*", "+@all"]
        client.execute_command("ACL", "SETUSER", "barred", "on", ">pw", *may)
        try:
            (other_type,) = look(on_redis, ["ops"])
            (unreadable,) = look(on_redis.model_copy(update={"broker_url": barred}), ["ops"])
        finally:
            client.execute_command("ACL", "DELUSER", "barred")
            client.delete(list_key(on_redis, "ops"))

    assert (other_type.waiting, unreadable.waiting) == (0, None)


def test_with_the_broker_away_the_workers_are_unknown_and_the_job_is_shown(
    shell: Shell, waiting: str
) -> None:
    away = {"TASKYARD_BROKER_URL": "redis://:hunter2@127.0.0.1:1/0"}

    ran = shell.run("jobs", "show", waiting, **away)
    checked = shell.run("check", **away)
    listed = shell.run("queues", "list", **away)

    assert ran.code == 0
    assert "workers   unknown (Redis at redis://:[redacted]@127.0.0.1:1/0 does not" in ran.out
    assert "it is unknown which workers run: the broker could not be asked." in checked.out
    assert (listed.code, listed.out) == (3, "")
    assert "hunter2" not in ran.out + checked.out + listed.err
