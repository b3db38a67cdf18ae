"""How many intents a relay carries out a second, and how long a single verb waits beside a bulk.

The relay is the shipped command with all that runs beside it (reconciler, sealer), in a process of
its own that has one core; the servers have the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import redis
from sqlalchemy import Engine, func, insert, select, text

from bench.contenders import Contender
from bench.processes import Bench, Workers
from taskyard import audit
from taskyard.access import Action, Identity, Role
from taskyard.clock import from_us
from taskyard.control import Control
from taskyard.database import create_partitions, migrate, opened
from taskyard.database.tables import AUDIT, LETTERS, OUTBOX
from taskyard.jobs.states import Event
from taskyard.records import Admission, Admitted, Records
from taskyard.settings import Settings
from taskyard.store import connect
from taskyard.wire.letter_categories import Category
from taskyard.wire.letter_envelope import letter_id

__all__ = ["Relayed", "cancels", "replays"]

_WITHIN_S: Final = 300.0
_AT_ONCE: Final = 2_000
_WHY: Final = "A measurement of the relay"
_BENCH: Final = Identity("bench", via="bench", role=Role.ADMIN)
_BODY: Final = b'[[{"url": "https://shop.example/cart", "n": 1}], {}, {}]'
# Neither the start of the process nor the last, smaller batches count.
_FROM, _TO = 0.9, 0.05


@dataclass(frozen=True)
class Relayed:
    """Intents a second on one core, and how long single verbs took meanwhile, in milliseconds.

    `cpu_ms` is what the relay's process needed for each intent.
    """

    per_s: float
    cpu_ms: float
    single_ms: Sequence[float]


def replays(bench: Bench, contender: Contender, database_url: str, count: int) -> Relayed:
    """Carry out replays of `count` dead letters."""
    with _place(bench, contender, database_url) as place:
        place.ask_for_replays(count)
        return place.measure(count)


def cancels(bench: Bench, contender: Contender, database_url: str, count: int) -> Relayed:
    """Carry out cancels of `count` queued jobs."""
    with _place(bench, contender, database_url) as place:
        place.ask_for_cancels(count)
        return place.measure(count)


class _Place:
    """One namespace of jobs, their letters and requests, as operators' commands leave them."""

    def __init__(self, bench: Bench, contender: Contender, engine: Engine, url: str) -> None:
        self._bench, self._contender, self._engine, self._url = bench, contender, engine, url
        redis_url = bench.redis_of(contender)
        self._client = connect(redis_url)
        settings = Settings(redis_url=redis_url, broker_url=bench.broker_of(contender))
        self._records = Records(self._client, settings)

    def ask_for_replays(self, count: int) -> None:
        """Store dead letters, their records, and a request for each."""
        for jobs in self._admitted(count):
            with self._client.pipeline(transaction=False) as pipe:
                for job_id, _ in jobs:
                    fields: dict[Any, Any] = {
                        "state": "dead_lettered",
                        "version": 3,
                        "decision": "dead_lettered",
                    }
                    pipe.hset(self._records.keys.record(job_id), mapping=fields)
                pipe.execute()
            self._store(LETTERS, [_letter(*job) for job in jobs])
            self._request(jobs, "replay", Action.CONTROLLED_REPLAY, _replay_payload)

    def ask_for_cancels(self, count: int) -> None:
        """Admit jobs, and store a request for each."""
        for jobs in self._admitted(count):
            self._request(jobs, Event.CANCEL, Action.CANCEL_REQUEST, _cancel_payload)

    def single_job(self) -> str:
        """The id of another job that waits in a queue."""
        ((job_id, _),) = self._admit(1)
        return job_id

    def measure(self, count: int) -> Relayed:
        """Run a relay until all is answered; the rate is that of the middle."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE outbox, operator_audit_log, dead_letter_queue"))
        single = _SingleVerbs(self._engine, self._records, self.single_job)
        with self._relay() as relay:
            times = [(time.monotonic(), count, 0.0)]
            with single.asking():
                while times[-1][1] > 0:
                    if time.monotonic() - times[0][0] > _WITHIN_S or relay.ended():
                        raise TimeoutError(f"the relay stopped with {times[-1][1]} intents left")
                    times.append((time.monotonic(), self._left(), sum(relay.cpu_s())))
                    time.sleep(0.1)
        steady = [each for each in times if count * _TO <= each[1] <= count * _FROM]
        (began_s, first, cpu_before), (ended_s, last, cpu_after) = steady[0], steady[-1]
        done = first - last
        rate, cpu_ms = done / (ended_s - began_s), (cpu_after - cpu_before) * 1000 / done
        return Relayed(rate, cpu_ms, single.between(began_s, ended_s))

    def _left(self) -> int:
        query = select(func.count()).where(OUTBOX.c.bulk, OUTBOX.c.done_at.is_(None))
        with self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def _admitted(self, count: int) -> Iterator[list[tuple[str, int]]]:
        for start in range(0, count, _AT_ONCE):
            yield self._admit(min(_AT_ONCE, count - start))

    def _admit(self, count: int) -> list[tuple[str, int]]:
        ids = [str(uuid.uuid4()) for _ in range(count)]
        jobs = [Admission(job_id, "test_execution", "exec", 3, 0, None, "", None) for job_id in ids]
        admitted = zip(ids, self._records.admit_many(jobs), strict=True)
        return [(job_id, one.epoch) for job_id, one in admitted if isinstance(one, Admitted)]

    def _request(
        self,
        jobs: Sequence[tuple[str, int]],
        kind: str,
        action: Action,
        payload: Callable[[str, int], dict[str, Any]],
    ) -> None:
        requests = [uuid.uuid4() for _ in jobs]
        asked = zip(requests, jobs, strict=True)
        self._store(AUDIT, [_audit_row(request, job_id, action) for request, (job_id, _) in asked])
        intents = [
            {
                "id": request,
                "kind": kind,
                "job_id": job_id,
                "epoch": epoch,
                "payload": payload(job_id, epoch),
                "bulk": True,
            }
            for request, (job_id, epoch) in zip(requests, jobs, strict=True)
        ]
        self._store(OUTBOX, intents)

    def _store(self, table: Any, rows: Sequence[dict[str, Any]]) -> None:
        with self._engine.begin() as connection:
            connection.execute(insert(table), rows)

    @contextmanager
    def _relay(self) -> Iterator[Workers]:
        """`taskyard relay` on one core beside the block; it is killed at the end."""
        core = max(os.sched_getaffinity(0))
        argv = [sys.executable, "-m", "taskyard.ops.cli", "relay"]
        variables = self._bench.environment(self._contender)
        log = self._bench.folder / "bench-logs" / "relay.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            process = subprocess.Popen(  # noqa: S603 - our own
                argv,
                env={**variables, "TASKYARD_DATABASE_URL": self._url},
                cwd=self._bench.folder,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        # Threads that it starts later inherit this.
        os.sched_setaffinity(process.pid, {core})
        workers = Workers([process])
        try:
            yield workers
        finally:
            workers.kill()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


@contextmanager
def _place(bench: Bench, contender: Contender, database_url: str) -> Iterator[_Place]:
    """An empty database, an empty Redis, and what is asked of them."""
    migrate(database_url)
    with redis.Redis.from_url(bench.redis_of(contender)) as client:
        client.flushdb()
    with opened(database_url, application_name="bench") as engine:
        with engine.begin() as connection:
            now = connection.execute(text("SELECT now()")).scalar_one()
            create_partitions(connection, now)
            connection.execute(text("TRUNCATE outbox, dead_letter_queue, restore_gate"))
        place = _Place(bench, contender, engine, database_url)
        try:
            yield place
        finally:
            place.close()


class _SingleVerbs:
    """An operator who cancels one job after the other, and what each answer took."""

    def __init__(self, engine: Engine, records: Records, job: Callable[[], str]) -> None:
        self._control = Control(engine, records, _BENCH, wait_s=30.0)
        self._job = job
        self._found: list[tuple[float, float]] = []

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask beside the block, in a thread."""
        stop = threading.Event()
        thread = threading.Thread(target=self._ask, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def between(self, began_s: float, ended_s: float) -> list[float]:
        """Return the milliseconds of the answers that came in this time."""
        return [took_ms for at, took_ms in self._found if began_s <= at <= ended_s]

    def _ask(self, stop: threading.Event) -> None:
        while not stop.is_set():
            job_id, began_s = self._job(), time.monotonic()
            answer = self._control.cancel(job_id, reason=_WHY)
            now_s = time.monotonic()
            if answer.outcome != audit.Outcome.APPLIED:
                raise RuntimeError(f"expected that the cancel is applied, got {answer}")
            self._found.append((now_s, (now_s - began_s) * 1000))


def _audit_row(request: uuid.UUID, job_id: str, action: Action) -> dict[str, Any]:
    return {
        "request_id": request,
        "action_type": action.value,
        "operator_identity": _BENCH.subject,
        "identity_via": _BENCH.via,
        "reason": _WHY,
        "target_request_id": job_id,
        "outcome": audit.Outcome.REQUESTED.value,
        "detail": {},
    }


def _letter(job_id: str, epoch: int) -> dict[str, Any]:
    return {
        "id": uuid.UUID(letter_id(job_id, epoch, 0)),
        "decided_at": from_us(epoch),
        "original_request_id": job_id,
        "epoch": epoch,
        "generation": 0,
        "job_type": "test_execution",
        "queue": "exec",
        "priority": 3,
        "failure_category": Category.RETRY_EXHAUSTED.value,
        "failure_reason": "timed out",
        "body": _BODY,
        "headers": {"id": job_id, "task": "test_execution", "lang": "py", "retries": 0},
        "properties": {"correlation_id": job_id, "delivery_mode": 2, "priority": 3},
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "replay_eligible": True,
        "status": "replayed",
    }


def _replay_payload(job_id: str, epoch: int) -> dict[str, Any]:
    letter = letter_id(job_id, epoch, 0)
    return {"letter_id": letter, "status_before": "pending", "queue": None, "edit": None}


def _cancel_payload(_: str, epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "generation": 0,
        "version": None,
        "job_type": "test_execution",
        "queue": "exec",
        "operator": _BENCH.subject,
    }
