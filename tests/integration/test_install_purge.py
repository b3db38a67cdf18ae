"""A purge of an installed app's queue, under its own keys; callers of a named app hear it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from celery import chord
from celery.exceptions import ChordError, TaskRevokedError
from sqlalchemy import Engine

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import BROKERS, legacy_on
from support.purging import ADMIN, WHY
from support.waiting import SOON_S, eventually
from support.yard import fresh_settings
from taskyard.audit import rows_of
from taskyard.control import Control
from taskyard.control.purge_queue import count_waiting
from taskyard.install import AnyQueuePublisher
from taskyard.records import Records
from taskyard.store import connect

pytestmark = pytest.mark.slow

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

ODD: dict[str, Any] = {"global_keyprefix": "shop:", "priority_steps": [0, 2, 5], "sep": "~"}


class Stage:
    """An app whose workers have announced their queues and ended: nothing takes its messages."""

    def __init__(self, app: Legacy, database: Engine) -> None:
        self.app, self.database = app, database
        self.work = f"{app.prefix}.work"
        self.client = connect(app.settings.need_redis_url())
        self.records = Records(self.client, app.settings)
        self.control = Control(database, self.records, ADMIN)
        worker = app.worker("announcer")
        eventually(self._announced, "its queues are announced", why=app.logs)
        worker.terminate()

    def _announced(self) -> bool:
        with closing(AnyQueuePublisher(self.app.settings, self.records)) as publisher:
            return publisher.is_announced(self.work)

    def waiting(self) -> int:
        with closing(AnyQueuePublisher(self.app.settings, self.records)) as publisher:
            return count_waiting(self.app.settings, publisher, self.work).messages


@pytest.fixture(params=[*BROKERS, "odd keys"])
def stage(
    request: pytest.FixtureRequest, servers: Servers, empty_database: Engine, tmp_path: Path
) -> Iterator[Stage]:
    if request.param == "odd keys":
        url = servers.valkey_url()
        app = Legacy("protect", url, url, fresh_settings(url), tmp_path, options=ODD)
        yield Stage(app, empty_database)
        app.close()
        return
    with legacy_on(request.param, servers, tmp_path) as app:
        yield Stage(app, empty_database)


def test_protected_and_observed_tasks_are_cancelled_and_no_message_is_left(stage: Stage) -> None:
    with stage.app.producer() as tasks:
        sent = [tasks.once.apply_async(priority=priority) for priority in (0, 3, 5, 9)]
        sent += [tasks.watched.delay()]
        eventually(lambda: stage.waiting() == len(sent), "they wait")
        outcome = stage.control.purge_queue(stage.work, reason=WHY)
        assert (outcome.counts.cancelled, outcome.remaining) == (len(sent), 0)
        assert stage.waiting() == 0
        for one in sent:
            record = stage.app.record(one.id)
            assert (record["state"], record["queue"]) == ("cancelled", stage.work)
            assert "kept" not in record
        with stage.database.connect() as connection:
            rows = rows_of(connection, outcome.request_id)
        assert [row["outcome"] for row in rows] == ["requested", "applied"]
        stage.app.worker("later")
        done = tasks.once.delay()
        assert done.get(timeout=SOON_S) == 1
        assert all(stage.app.notes(f"{one.id}:runs") == [] for one in sent)


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
def test_callers_of_an_app_that_is_named_hear_that_their_task_is_revoked(stage: Stage) -> None:
    with stage.app.producer() as tasks:
        waiting = tasks.once.delay()
        result = chord([tasks.add.s(1, 1), tasks.add.s(2, 2)])(tasks.total.s())
        eventually(lambda: stage.waiting() == 3, "they wait")
        stage.control.purge_queue(stage.work, reason=WHY, app=tasks.app)
        with pytest.raises(TaskRevokedError, match="cancelled by an operator"):
            waiting.get(timeout=SOON_S)
        eventually(lambda: result.state == "FAILURE", "the chord's end", why=stage.app.logs)
        assert type(result.result) is ChordError
