"""The stage of production: a real broker, a real worker, the mirror, Postgres and the relay."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import Engine

from conformance.handlers import FOLDER, Diary
from conformance.stage import Seen, waits_between
from servers import Servers
from support.databases import migrated_database
from support.mirror import mirroring, stored_letters
from support.waiting import eventually
from support.worker import Worker
from support.yard import catalogue, fresh_settings
from taskyard.access import Identity, Role
from taskyard.client import EnqueueRequest, JobHandle, Taskyard
from taskyard.client.check_request import check
from taskyard.client.render_message import first_message
from taskyard.control import Edit, replay
from taskyard.gate import Gate
from taskyard.jobs.states import LIVE, State
from taskyard.ledger import history
from taskyard.relay import Relay
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import AttemptNote
from taskyard.wire.stamp_header import Stamp

__all__ = ["ServersStage"]

OPERATOR = Identity("suite@example.com", via="token", role=Role.OPERATOR)
REASON = "The conformance suite wants to see the job again"
REST = set(State) - (LIVE - {State.DEAD_LETTERED}) - {State.NONE}


@dataclass
class ServersStage:
    """One worker with one process, so that the order of service can be seen."""

    name: str
    client: Taskyard
    diary: Diary
    database: Engine

    @classmethod
    @contextmanager
    def opened(cls, name: str, servers: Servers, folder: Path) -> Iterator[ServersStage]:
        urls = {"broker_url": servers.rabbitmq_url()} if name == "rabbitmq" else {}
        settings = fresh_settings(servers.valkey_url(), **urls)
        diary = Diary(folder)
        diary.prepare()
        worker = Worker(
            settings,
            folder,
            concurrency=1,
            modules=("conformance.handlers",),
            environment={FOLDER: str(folder)},
        )
        with (
            Taskyard(settings, catalogue()) as client,
            mirroring(settings, migrated_database(servers)) as database,
            _relaying(settings, client, database),
            worker.launch() as running,
        ):
            running.await_log(" ready.")
            yield cls(name, client, diary, database)

    # -- jobs ----------------------------------------------------------------------------------

    def act(self, do: str = "return", job_type: str = "steady", **options: Any) -> JobHandle:
        names = ("times", "value", "code", "label", "retry_after_s")
        payload = {"do": do} | {name: options.pop(name) for name in names if name in options}
        return self.client.enqueue(job_type, payload, **options)

    def settle(self, *jobs: JobHandle | str) -> None:
        for job in jobs:
            handle = self.client.job(job) if isinstance(job, str) else job
            eventually(
                lambda handle=handle: handle.state() in REST,  # type: ignore[misc]
                f"job {handle.job_id} at rest",
                why=lambda handle=handle: str(handle.record().fields),  # type: ignore[misc]
            )

    @contextmanager
    def holding(self) -> Iterator[None]:
        """The worker's only process waits meanwhile."""
        self.diary.shut()
        guard = self.act("wait")
        eventually(lambda: self.diary.runs(guard.job_id), "the worker is kept busy")
        try:
            yield
        finally:
            self.diary.open()

    def redeliver(self, job: JobHandle, *, first: bool = False) -> None:
        """A message with the same stamp once more, then a job behind it."""
        record = job.record()
        last = record.generation, record.number("seq")
        payload = {"do": "return", "value": "from the second delivery"}
        request = EnqueueRequest(job_type=record.job_type, payload=payload)
        checked = check(request, self.client.settings, self.client.catalogue)
        self.client.publisher.publish(
            first_message(self.client.app, replace(checked, job_id=job.job_id)),
            queue=record.queue,
            priority=None,
            job_id=job.job_id,
            stamp=Stamp(record.epoch, *((0, 0) if first else last)),
        )
        self.settle(self.act(queue=record.queue))

    def send_unknown(self, job_type: str) -> str:
        job_id = str(uuid.uuid4())
        options = {"task_id": job_id, "queue": self.client.settings.broker_name("exec")}
        self.client.app.send_task(job_type, args=[{}], **options)
        eventually(lambda: self.client.job(job_id).state() in REST, "an end of the unknown job")
        return job_id

    # -- the operator --------------------------------------------------------------------------

    def letters(self, job: JobHandle | str) -> list[Seen]:
        """The rows in Postgres, once there is one of the death that the record tells."""
        handle = self.client.job(job) if isinstance(job, str) else job
        record = handle.record()
        dead = record.state is State.DEAD_LETTERED

        def found() -> list[dict[str, Any]]:
            with self.database.connect() as connection:
                return stored_letters(connection, handle.job_id)

        if dead:
            eventually(
                lambda: any(row["generation"] == record.generation for row in found()),
                f"a letter of job {handle.job_id} in Postgres",
            )
        return [_seen(row) for row in sorted(found(), key=lambda row: int(row["generation"]))]

    def replay(self, letter: Seen, **options: Any) -> None:
        edit = {"payload": Edit(args=[options.pop("payload")])} if "payload" in options else {}
        identity = {"identity": OPERATOR, "reason": REASON}
        asked = replay(self.database, letter.letter_id, **identity, **edit, **options)  # type: ignore[arg-type]
        eventually(
            lambda: self.client.job(letter.job_id).record().generation == asked.generation,
            f"generation {asked.generation} of job {letter.job_id}",
        )

    def event_names(self, job: JobHandle | str) -> list[str]:
        handle = self.client.job(job) if isinstance(job, str) else job
        version = handle.record().number("version")

        def events() -> list[dict[str, Any]]:
            with self.database.connect() as connection:
                return list(history(connection, handle.job_id))

        found = eventually(
            lambda: [e for e in (events(),) if len(e) >= version], f"{version} events in Postgres"
        )
        return [str(event["event"]) for event in found[0]]

    def need_canvas(self) -> None:
        """It is Celery's own, which is here."""


def _seen(row: dict[str, Any]) -> Seen:
    return Seen(
        letter_id=str(row["id"]),
        job_id=row["original_request_id"],
        generation=row["generation"],
        job_type=row["job_type"],
        domain=row["domain"],
        queue=row["queue"],
        priority=row["priority"],
        category=row["failure_category"],
        code=row["failure_code"],
        error_class=row["error_class"],
        message=row["failure_reason"],
        traceback=row["traceback"],
        args=row["args"],
        body=bytes(row["body"]),
        outcomes=[note["outcome"] for note in row["attempts"]],
        waits_s=waits_between([AttemptNote.model_validate(note) for note in row["attempts"]]),
        evidence=row["evidence"],
        eligible=row["replay_eligible"],
        status=row["status"],
    )


@contextmanager
def _relaying(settings: Settings, client: Taskyard, database: Engine) -> Iterator[None]:
    """The real relay in a thread."""
    connection = redis.Redis.from_url(settings.need_redis_url())
    gate = Gate(settings.namespace, connection)
    relay = Relay(settings, database, client.records, client.publisher, gate)
    stop = threading.Event()
    thread = threading.Thread(target=relay.run, args=(stop,), name="relay-under-test")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        connection.close()
