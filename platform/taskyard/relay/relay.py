"""The relay as a process: it carries out one intent after another, each in one transaction.

The transaction locks the intent's row from the claim to the commit. After a crash at any point the
next relay takes the intent, and the request's id shows that the record was changed already. Only
the publication can happen twice: both copies have the same stamp, and only one of them can begin.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any, Final, assert_never

from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from taskyard import audit, outbox
from taskyard.audit import Outcome
from taskyard.control.live_verb import KINDS
from taskyard.control.replay import KIND
from taskyard.database.outage_retry import repeat
from taskyard.errors import (
    GateClosed,
    PublishFailed,
    Refused,
    SchemaMismatch,
    ServerRefused,
    ServerUnreachable,
    TaskyardError,
    TransitionRefused,
    UnknownQueue,
)
from taskyard.jobs.states import Event
from taskyard.outbox import Intent
from taskyard.relay.carry_out_replay import Replay, open_generation, prepare, publish, reopen_letter
from taskyard.relay.carry_out_verb import Applied, Refusal, Waits, carry_out
from taskyard.relay.new_queue import check_new_queue
from taskyard.relay.ports import GatePort, Opened, PublisherPort, QueuesPort, RecordsPort
from taskyard.settings import Settings
from taskyard.wire.failure_backoff import FailureBackoff
from taskyard.wire.redacted_logs import logger

__all__ = ["Relay"]

log = logger(__name__)

_IDLE_S: Final = 0.2  # how long an operator's verb may wait for an idle relay
_LONGEST_WAIT_S: Final = 60
_OUTBOX: Final = "outbox"
_NOT_AUDITED: Final = "not_audited"
_REFUSALS: Final = (Refused, TransitionRefused, UnknownQueue)


class Relay:
    """Carries out intents; any number of relays may run at once."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        records: RecordsPort,
        publisher: PublisherPort,
        gate: GatePort,
        queues: QueuesPort | None = None,
    ) -> None:
        """Set up the relay.

        `queues` are checked before a record is changed; without `queues` every queue counts as
        reachable.
        """
        self._settings, self._engine, self._queues = settings, engine, queues
        self._records, self._publisher, self._gate = records, publisher, gate
        self._backoff = FailureBackoff(longest_s=_LONGEST_WAIT_S)

    def run(self, stop: threading.Event) -> None:
        """Carry out intents until `stop` is set.

        While a server is unreachable or the gate is closed, wait.
        """

        def step() -> None:
            self._gate.beat(self._engine)
            if not self.run_once():
                stop.wait(_IDLE_S)

        repeat("relay", step, stop, also=(GateClosed, RedisError))

    def run_once(self) -> bool:
        """Carry out, refuse or postpone the oldest free intent; return False if there is none.

        Raises `GateClosed` where `run` would wait.
        """
        intent: Intent | None = None
        try:
            with self._engine.begin() as connection:
                self._gate.check(connection)
                intent = outbox.claim(connection)
                if intent is not None:
                    self._handle(connection, intent)
        except (ServerUnreachable, ServerRefused, SchemaMismatch, SQLAlchemyError):
            raise
        except Exception as error:
            if intent is None:
                raise
            self._set_aside(intent, error)
        return intent is not None

    def _set_aside(self, intent: Intent, error: Exception) -> None:
        """Postpone an intent that failed unexpectedly, so that it does not stop the others."""
        log.error(
            "the intent %s failed with an unexpected error; the relay tries it again later",
            intent.id,
            exc_info=error,
            extra={"action": "relay_failed"},
        )
        with self._engine.begin() as connection:
            self._postpone(connection, intent, f"{type(error).__name__}: {error}")

    def _handle(self, connection: Connection, intent: Intent) -> None:
        if not audit.is_requested(connection, intent.id, intent.job_id):
            self._drop(connection, intent)
        elif intent.kind == KIND:
            self._replay(connection, intent)
        elif intent.kind in KINDS:
            self._operate(connection, intent)
        else:
            # A newer version wrote it, and a relay of that version will carry it out.
            self._postpone(
                connection, intent, f"this version does not know the intent {intent.kind!r}"
            )

    def _drop(self, connection: Connection, intent: Intent) -> None:
        """Refuse an intent that the audit log does not know, or knows for another job.

        Every verb writes both in one transaction, so somebody wrote this one into the outbox alone.
        It is not postponed, since the later intents of its job would wait for it.
        """
        outbox.finish(connection, intent.id)
        audit.count_unverified(connection, _OUTBOX, _NOT_AUDITED)
        log.error(
            "the request %s to %s job %s is not in the audit log, so it is not carried out. "
            "No verb of Taskyard wrote it: find out who can write to the outbox",
            intent.id,
            intent.kind,
            intent.job_id,
            extra={"action": "relay_not_audited", "request": str(intent.id)},
        )

    # -- verbs on live jobs --------------------------------------------------------------------

    def _operate(self, connection: Connection, intent: Intent) -> None:
        try:
            if self._queues is not None and intent.kind == Event.REROUTE:
                check_new_queue(self._settings, self._records, self._queues, intent)
            answer = carry_out(
                connection,
                self._settings,
                self._records,
                self._publisher,
                intent,
                self._queues,
            )
        except _REFUSALS as error:
            self._answer(connection, intent, audit.refused(error), {})
            return
        except PublishFailed as error:
            self._postpone(connection, intent, str(error))
            return
        except (RedisError, ServerUnreachable, ServerRefused) as error:
            self._postpone(connection, intent, f"the record could not be reached: {error}")
            return
        match answer:
            case Applied(detail):
                self._answer(connection, intent, Outcome.APPLIED, detail)
            case Refusal(why):
                self._answer(connection, intent, audit.refused(why), {})
            case Waits(why, attempt=True, first_s=first_s, longest_s=longest_s, known=known):
                wait_s = min(first_s * 2 ** min(intent.attempts, 10), longest_s)
                outbox.await_attempt(connection, intent, timedelta(seconds=wait_s), why, known)
            case Waits(why, known=known):
                outbox.add_facts(connection, intent, known)
                self._postpone(connection, intent, why)
            case _:
                assert_never(answer)

    def _answer(
        self, connection: Connection, intent: Intent, outcome: str, detail: dict[str, Any]
    ) -> None:
        outbox.finish(connection, intent.id)
        self._backoff.succeeded(_postponed(intent), str(intent.id))
        audit.answer(connection, intent.id, outcome, detail)
        log.info(
            "the request to %s job %s is %s",
            intent.kind,
            intent.job_id,
            outcome,
            extra={"action": "relay_answered", "job_id": intent.job_id, "request": str(intent.id)},
        )

    # -- replays -------------------------------------------------------------------------------

    def _replay(self, connection: Connection, intent: Intent) -> None:
        try:
            replay = prepare(connection, intent, self._settings)
        except _REFUSALS as error:
            self._refuse(connection, intent, error)
            return
        try:
            if self._queues is not None:
                self._queues.check(replay.queue)
            opened = open_generation(self._records, replay)
        except _REFUSALS as error:
            self._refuse(connection, intent, error)
        except (RedisError, ServerUnreachable, ServerRefused) as error:
            self._postpone(connection, intent, f"the record could not be reached: {error}")
        except PublishFailed as error:
            self._postpone(connection, intent, str(error))
        else:
            self._publish(connection, intent, replay, opened)

    def _publish(
        self, connection: Connection, intent: Intent, replay: Replay, opened: Opened
    ) -> None:
        """Publish the message.

        The record has been changed, so from here on an intent may be postponed, never refused.
        """
        try:
            publish(self._publisher, replay, opened)
        except TaskyardError as error:
            self._postpone(connection, intent, str(error))
            return
        outbox.finish(connection, intent.id)
        self._backoff.succeeded(_postponed(intent), str(intent.id))
        detail = {"generation": opened.generation, "queue": replay.queue}
        audit.answer(connection, intent.id, Outcome.APPLIED, detail)
        log.info(
            "job %s is replayed as generation %d",
            intent.job_id,
            opened.generation,
            extra={"action": "relay_applied", "job_id": intent.job_id, "request": str(intent.id)},
        )

    def _refuse(self, connection: Connection, intent: Intent, error: Exception) -> None:
        reopen_letter(connection, intent)
        outbox.finish(connection, intent.id)
        audit.answer(connection, intent.id, audit.refused(error), {})
        log.warning(
            "the replay of job %s is refused: %s",
            intent.job_id,
            error,
            extra={"action": "relay_refused", "job_id": intent.job_id, "request": str(intent.id)},
        )

    def _postpone(self, connection: Connection, intent: Intent, why: str) -> None:
        wait = timedelta(seconds=min(2 ** min(intent.attempts, 10), _LONGEST_WAIT_S))
        outbox.postpone(connection, intent.id, wait, why)
        # The waits of this intent are in Postgres, so that they survive this relay.
        facts = {"job_id": intent.job_id, "request": str(intent.id)}
        self._backoff.failed(
            _postponed(intent), why, action="relay_postponed", item=str(intent.id), facts=facts
        )


def _postponed(intent: Intent) -> str:
    return f"the {intent.kind} of a job is postponed"
