"""Purge a queue: permit, validate, audit; then cancel the jobs that wait there and remove them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from typing import Any, Final

from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from taskyard import audit, outbox
from taskyard.access import Action, Identity
from taskyard.audit import Outcome
from taskyard.broker import QueueMessages, WaitingMessage, make_app
from taskyard.control.operator_reasons import Mode, check_reason
from taskyard.control.operator_verb import VerbCall, audited, check_queue_name
from taskyard.control.purge_batch import RELAY_AFTER
from taskyard.control.purge_outcome import PurgeCounts, PurgeOutcome, Waiting
from taskyard.control.purge_rules import embedded
from taskyard.control.purge_run import PurgeRun, ReportsRevoked
from taskyard.engine.report_revoked import report_revoked
from taskyard.errors import (
    NotFound,
    NotPermitted,
    PurgeStopped,
    Refused,
    ServerRefused,
    ServerUnreachable,
    UnknownQueue,
)
from taskyard.gate import Gate
from taskyard.install import AnyQueuePublisher
from taskyard.jobs import Catalogue
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.store import BROKER, explained
from taskyard.wire import redact_url
from taskyard.wire.redacted_logs import logger

__all__ = ["count_waiting", "purge_queue"]

log = logger(__name__)

_WHY: Final = "cancelled by an operator"
_FAILURES: Final = (Refused, RedisError, SQLAlchemyError, ServerUnreachable, ServerRefused)


def count_waiting(settings: Settings, publisher: AnyQueuePublisher, queue: str) -> Waiting:
    """Return what a purge of the queue would look at; changes nothing.

    Raises `NotFound`, `Refused`, `ServerUnreachable` and `ServerRefused`.
    """
    with closing(_messages_of(publisher, queue)) as messages, _broker(settings, messages):
        delayed = messages.count_delayed() if messages.has_delayed else None
        return Waiting(queue, messages.count(), delayed)


def purge_queue(
    engine: Engine,
    records: Records,
    publisher: AnyQueuePublisher,
    queue: str,
    *,
    identity: Identity,
    reason: str | None,
    on_behalf_of: str | None = None,
    require_reason: Mode = "strict",
    at_most: int | None = None,
    delayed: bool = False,
    app: Any = None,
    progress: Callable[[PurgeCounts], None] | None = None,
) -> PurgeOutcome:
    """Cancel the jobs that wait in a queue, then remove their messages; each job is audited.

    Only what was there at the start is purged, so it ends while producers go on. If more than
    `at_most` messages wait, nothing is done. `delayed` includes what waits for its time. `app` is
    the Celery app of an installed app's queue, whose result backend then hears of each job.

    Raises `NotPermitted`, `InvalidReason`, `InvalidPayload`, `NotFound` and `Refused`, each of them
    audited; `GateClosed`; the servers' errors before anything is done, and `PurgeStopped` after.
    If the process dies, a relay answers the purge's request.
    """
    call = VerbCall(Action.PURGE_QUEUE, identity, reason, on_behalf_of)
    with audited(engine, call):
        call.permit()
        call.reason = check_reason(reason, require_reason)
        check_queue_name(queue)
        _permit_on(call, queue)
        messages = _messages_of(publisher, queue)
    with closing(messages):
        with audited(engine, call):
            with _broker(records.settings, messages):
                waiting = messages.count()
            _check_number(queue, waiting, at_most)
            with engine.begin() as connection:
                Gate(records.settings.namespace, records.client).check(connection)
                detail = {"queue": queue, "waiting": waiting, "delayed": delayed}
                call.write(connection, Outcome.REQUESTED, detail)
                outbox.put_many(connection, [_intent(call)], RELAY_AFTER)
        report = _reporter(records.settings, queue, app)
        run = PurgeRun(engine, records, messages, call, queue, report=report, progress=progress)
        return _run(engine, call, run, messages, queue, waiting=waiting, delayed=delayed)


def _intent(call: VerbCall) -> outbox.Intent:
    """Return the intent with which a relay answers the request if this process dies."""
    request = call.request_id
    return outbox.Intent(request, call.action.value, str(request), epoch=0, payload={})


def _messages_of(publisher: AnyQueuePublisher, queue: str) -> QueueMessages:
    try:
        return publisher.messages_of(queue)
    except UnknownQueue as error:
        raise NotFound(
            f"{error} A queue of an installed app is known when one of its workers has announced "
            "it. See: taskyard queues list"
        ) from None


@contextmanager
def _broker(settings: Settings, messages: QueueMessages) -> Iterator[None]:
    """Raise `ServerUnreachable` or `ServerRefused` for an error of the broker."""
    url = settings.need_broker_url()
    try:
        yield
    except RedisError as error:
        raise explained(error, url, variable=BROKER) from error
    except messages.errors() as error:
        raise ServerUnreachable(
            "the broker", redact_url(url), error, f"Start it, or correct {BROKER}"
        ) from error


def _permit_on(call: VerbCall, queue: str) -> None:
    if call.identity.domains is not None:
        raise NotPermitted(
            f"{call.identity.subject} is bound to domains, and a queue may hold jobs of others. "
            f"Cancel those of one domain: taskyard jobs cancel --queue {queue} --domain DOMAIN"
        )
    call.permit_on(queue, domain=None)


def _check_number(queue: str, waiting: int, at_most: int | None) -> None:
    if at_most is not None and waiting > at_most:
        raise Refused(
            f"{waiting} messages wait in queue {queue!r}, and {at_most} were confirmed, so nothing "
            "was done. Look again, and confirm the number that you then see"
        )


def _reporter(settings: Settings, queue: str, app: Any) -> ReportsRevoked | None:
    """Return what reports revoked jobs to Celery; None for an app that is not given."""
    native = queue in settings.queues
    if app is None and not native:
        return None

    @cache
    def celery() -> Any:
        return make_app(settings, Catalogue.of(settings)) if app is None else app

    def report(message: WaitingMessage, job_id: str) -> None:
        within = embedded(message) or {}
        # The script that cancels a native job stores its result; only a chord must hear it.
        if native and not within.get("chord"):
            return
        facts = {"headers": message.headers, "properties": message.properties}
        report_revoked(celery(), job_id, **facts, embedded=within, why=_WHY)

    return report


def _run(
    engine: Engine,
    call: VerbCall,
    run: PurgeRun,
    messages: QueueMessages,
    queue: str,
    *,
    waiting: int,
    delayed: bool,
) -> PurgeOutcome:
    failures: tuple[type[Exception], ...] = (*_FAILURES, *messages.errors())
    try:
        run.purge_waiting(waiting)
        if delayed:
            run.purge_delayed()
        messages.let_go()
        remaining = messages.count()
        with engine.begin() as connection:
            detail = {**run.counts.document(), "remaining": remaining}
            _answer(connection, call, queue, Outcome.APPLIED, detail)
    except failures as error:
        raise _stopped(engine, call, run.counts, queue, error) from error
    return PurgeOutcome(call.request_id, queue, waiting, remaining, run.counts)


def _stopped(
    engine: Engine, call: VerbCall, counts: PurgeCounts, queue: str, error: Exception
) -> PurgeStopped:
    """Audit that the purge has stopped, if Postgres can; return the error for the caller."""
    cause: object = error
    if isinstance(error, ServerUnreachable | ServerRefused):
        # Its remedy is for a call that has done nothing.
        cause = f"{error.role} at {error.url} has failed ({error.cause})"
    stopped = PurgeStopped(queue, cause, counts.document())
    try:
        with engine.begin() as connection:
            _answer(connection, call, queue, audit.refused(stopped), counts.document())
    except (SQLAlchemyError, ServerUnreachable, ServerRefused) as lost:
        log.error(
            "the purge of queue %s has stopped, and Postgres does not take its answer for the "
            "audit log, so a relay answers its request: %s",
            queue,
            lost,
            extra={"action": "purge_not_audited", "queue": queue},
        )
    return stopped


def _answer(
    connection: Connection, call: VerbCall, queue: str, outcome: str, detail: Mapping[str, object]
) -> None:
    """Answer the purge's request, unless a relay has."""
    if outbox.finish_own(connection, call.request_id):
        audit.answer(connection, call.request_id, outcome, detail)
        return
    log.warning(
        "the purge of queue %s was silent for so long that a relay has answered its request %s in "
        "the audit log; what it did is: %s",
        queue,
        call.request_id,
        dict(detail),
        extra={"action": "purge_answered_by_relay", "queue": queue},
    )
