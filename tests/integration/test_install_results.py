"""The handle of an installed app's job gives its result, or says who has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import BROKERS, legacy_on
from support.waiting import SOON_S
from taskyard.client import Taskyard
from taskyard.errors import DeadLettered, NotFound


@pytest.fixture(scope="module", params=BROKERS)
def app(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Legacy]:
    """Its results lie in another database than the records."""
    backend = servers.valkey_url().removesuffix("/0") + "/5"
    folder = tmp_path_factory.mktemp("results")
    with legacy_on(request.param, servers, folder, backend=backend) as legacy:
        legacy.worker()
        yield legacy


@pytest.fixture(scope="module")
def tasks(app: Legacy) -> Iterator[Any]:
    with app.producer() as module:
        yield module


@pytest.fixture
def yard(app: Legacy) -> Iterator[Taskyard]:
    with Taskyard(app.settings) as opened:
        yield opened


def test_a_protected_tasks_result_is_read_from_the_records_copy(
    tasks: Any, app: Legacy, yard: Taskyard
) -> None:
    job = tasks.add.delay(40, 2)
    app.await_state(job.id, "completed")
    assert yard.job(job.id).result(SOON_S) == 42


def test_a_result_that_the_record_does_not_copy_names_who_has_it(
    tasks: Any, app: Legacy, yard: Taskyard
) -> None:
    job = tasks.watched.delay()
    app.await_state(job.id, "completed")
    with pytest.raises(NotFound, match=r"does not know the job type 'legacy\.watched'") as raised:
        yard.job(job.id).result(SOON_S)
    assert f"app.AsyncResult({job.id!r}).get()" in str(raised.value)


def test_a_result_in_another_format_under_celerys_key_is_not_mistaken(
    tasks: Any, app: Legacy, yard: Taskyard
) -> None:
    job = tasks.watched.delay()
    app.await_state(job.id, "completed")
    yard.records.client.delete(yard.records.keys.kept_result(job.id))
    yard.records.client.set(yard.records.keys.result(job.id), b"\x80\x04pickled")
    with pytest.raises(NotFound, match="its result is not kept here"):
        yard.job(job.id).result(SOON_S)


def test_a_dead_letter_of_an_app_is_told_as_one(tasks: Any, app: Legacy, yard: Taskyard) -> None:
    job = tasks.fail.delay("no")
    app.await_state(job.id, "dead_lettered")
    with pytest.raises(DeadLettered, match=r"\(exception: ValueError: no\)"):
        yard.job(job.id).result(SOON_S)
    (note,) = yard.records.read(job.id).history
    assert (note.code, note.error) == ("exception", "ValueError: no")
