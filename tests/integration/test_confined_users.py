"""The whole way of a job as each of the confined users that docs/access.md describes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, delete

from servers import RedisServer
from support.legacy import Legacy
from support.mirror import mirroring, stored_letters
from support.relay import relaying
from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness
from taskyard.access import Identity, Role
from taskyard.control import replay
from taskyard.database import engine
from taskyard.database.tables import GATE
from taskyard.jobs.states import State
from taskyard.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "access.md"
WORD = "confined"
OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)


def documented_users() -> dict[str, list[str]]:
    """The words of each `ACL SETUSER` on the page, by user."""
    block = re.compile(r"^```text\n(ACL SETUSER .*?)^```$", re.MULTILINE | re.DOTALL)
    blocks = block.findall(PAGE.read_text("utf-8"))
    return {words[2]: words for words in (block.split() for block in blocks)}


USERS = documented_users()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of this module's own: its keys are those of one deployment, and it has users."""
    running = RedisServer(tmp_path_factory.mktemp("confined"))
    running.start()
    with Redis.from_url(running.url) as client:
        for words in USERS.values():
            client.execute_command(*[word.replace("PASSWORD", WORD) for word in words])
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def emptied(redis_server: RedisServer, database_url: str) -> None:
    """Nothing of the last test is left, the mark neither that Redis and Postgres share."""
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    database = engine(database_url)
    with database.begin() as connection:
        connection.execute(delete(GATE))
    database.dispose()


def settings_of(server: RedisServer, user: str, namespace: str = "taskyard") -> Settings:
    url = server.url.replace("redis://", f"redis://{user}:{WORD}@")
    return Settings(namespace=namespace, broker_url=url, redis_url=url)


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def refused(server: RedisServer) -> list[str]:
    """What the server has refused to a confined user so far, by command or key."""
    with Redis.from_url(server.url, decode_responses=True) as client:
        entries: Any = client.acl_log(count=128)
        client.acl_log_reset()
    return sorted(f"{entry['username']}: {entry['reason']} {entry['object']}" for entry in entries)


@pytest.mark.parametrize("namespace", ["taskyard", "acme"])
def test_a_job_goes_its_whole_way_as_the_confined_user_of_its_namespace(
    redis_server: RedisServer,
    running: ExitStack,
    tmp_path: Path,
    database_url: str,
    namespace: str,
) -> None:
    settings = settings_of(redis_server, namespace, namespace)
    refused(redis_server)
    harness = ServerHarness(settings)
    running.callback(harness.yard.close)
    database = running.enter_context(mirroring(settings, database_url))
    running.enter_context(relaying(settings, database))
    worker = running.enter_context(Worker(settings, tmp_path, alone=False).launch())
    worker.await_log(" ready.")
    plain, late = harness.act(value=7), harness.act(countdown=1)
    again = harness.act("fail", times=1, job_type="locator_act")
    dead = harness.act("fail", times=1, code="hopeless", policy={"max_retries": 0})
    for job in (plain, late, again):
        assert harness.await_end(job) is State.COMPLETED, worker.log[-4000:]
    assert plain.result(timeout=10) == 7
    assert harness.await_end(dead) is State.DEAD_LETTERED
    replay(database, _letter(database, dead.job_id), identity=OPS, reason="its cause was mended")
    harness.await_state(dead, State.COMPLETED)
    assert harness.runs(dead) == 2
    assert refused(redis_server) == []
    if namespace == "acme":
        assert _outside(redis_server, "acme:") == []


def _letters(database: Engine, job_id: str) -> list[dict[str, Any]]:
    with database.connect() as connection:
        return stored_letters(connection, job_id)


def _letter(database: Engine, job_id: str) -> str:
    return str(eventually(lambda: _letters(database, job_id), "the letter is mirrored")[0]["id"])


def _outside(server: RedisServer, prefix: str) -> list[str]:
    """Keys and channels that do not begin with `prefix`."""
    with Redis.from_url(server.url, decode_responses=True) as client:
        keys: Any = client.keys("*")
        channels: Any = client.pubsub_channels()
    return [name for name in [*keys, *channels] if not name.startswith(prefix)]


@pytest.mark.parametrize("transport", [True, False], ids=["our transport", "kombu's"])
@pytest.mark.parametrize("user", ["shop", "prefixed"])
def test_an_installed_apps_job_goes_its_whole_way_as_its_confined_user(
    redis_server: RedisServer,
    running: ExitStack,
    tmp_path: Path,
    database_url: str,
    user: str,
    transport: bool,
) -> None:
    namespace = "acme" if user == "prefixed" else "taskyard"
    settings = settings_of(redis_server, user, namespace)
    refused(redis_server)
    url = settings.need_broker_url()
    prefix = "shop:" if user == "prefixed" else ""
    options = {"global_keyprefix": prefix} if prefix else {}
    shop = Legacy(
        "protect", url, url, settings, tmp_path, redis_server.url,
        transport=transport, options=options, prefix="shop",
    )  # fmt: skip
    running.callback(shop.close)
    database = running.enter_context(mirroring(settings, database_url))
    running.enter_context(relaying(settings, database))
    worker = shop.starting("worker", None)
    worker.await_log(" ready.")
    with shop.producer() as tasks:
        assert tasks.add.delay(1, 2).get(timeout=40) == 3
        assert tasks.add.apply_async((2, 2), countdown=1.5).get(timeout=40) == 4
        assert tasks.insist.delay(3).get(timeout=40)[0] == 3
        dead = tasks.fail.delay("nothing to see")
        shop.await_state(dead.id, "dead_lettered")
        replay(database, _letter(database, dead.id), identity=OPS, reason="its cause was mended")
        eventually(lambda: len(_letters(database, dead.id)) == 2, "it ran, and died, once more")
    assert refused(redis_server) == [], worker.log
    if prefix:
        known = ("shop:", "acme:")
        assert [key for key in _outside(redis_server, "shop:") if not key.startswith(known)] == []
