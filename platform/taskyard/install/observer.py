"""Observe tasks: a thread writes events and dead letters, and callers never wait for it.

The main process only puts values into a queue of limited size. A failure here is logged and
counted; it does not affect the app's tasks, acknowledgements and results.
"""

from __future__ import annotations

import queue
from dataclasses import replace
from typing import Any, Final, Protocol

from taskyard.clock import SYSTEM_CLOCK
from taskyard.deadletters import LetterBox, build_letter
from taskyard.engine.unrunnable_messages import unidentified_letter
from taskyard.install.background_queue import Backlog
from taskyard.install.observed_events import (
    DeadBeforeStart,
    Ended,
    Observation,
    Requeued,
    Started,
    Watched,
)
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import TERMINAL, State
from taskyard.records import Decided, Held, Record, Records, Run, Superseded
from taskyard.runner.reused_ids import reuse_in, reused_id
from taskyard.runner.stored_decision import death_of
from taskyard.wire.failure_backoff import FailureBackoff
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.redacted_logs import logger
from taskyard.wire.stamp_header import Stamp

__all__ = ["Observer"]

log = logger(__name__)

# About 20 MiB of small messages; above that, observations are dropped.
_WAITING: Final = 10_000
_SHUTDOWN_S: Final = 5.0
# An attempt may end before the one whose retry it is, since Celery publishes that first. For this
# time the earlier end is waited for; if two deliveries overlap by themselves it may never come.
_ORDER_S: Final = 1.0
_LOOK_S: Final = 0.02
_OVER: Final = TERMINAL | {State.DEAD_LETTERED}
_OBSERVE: Final = "an event of an observed task was not written to the records"


class Observed(Protocol):
    """The parts of an installed app that an observer uses."""

    @property
    def records(self) -> Records:
        """Return the records from which the observer reads."""

    @property
    def watching(self) -> Records:
        """Return the records of observed tasks, with a limit of deaths that is never reached."""

    @property
    def watched_letters(self) -> LetterBox:
        """Return the publisher of dead letters of observed tasks."""

    @property
    def backoff(self) -> FailureBackoff:
        """Return the failures that last, such as a Redis that refuses."""


class Observer:
    """A queue and a thread, new in each process, that write what was observed.

    The first observation starts the thread.
    """

    def __init__(self, yard: Observed) -> None:
        self._yard = yard
        self._backlog: Backlog[Observation] = Backlog("taskyard-observer", _WAITING, self._run)
        # By delivery: its job and its run; no run if another delivery has closed the record's life.
        self._running: dict[str, tuple[str, Run | None]] = {}
        # Ends that came before those of earlier deliveries, and until when they wait.
        self._early: list[tuple[float, Ended]] = []
        self.dropped = 0

    def observe(self, seen: Observation) -> None:
        """Add an observation to the queue; never waits and never raises."""
        try:
            self._backlog.put(seen)
        except queue.Full:
            self.dropped += 1
            if self.dropped.bit_count() == 1:
                log.error(
                    "%d events of observed tasks were dropped, because Redis stores them too "
                    "slowly; these tasks run normally, but their history is incomplete",
                    self.dropped,
                    extra={"action": "observation_dropped"},
                )
        except RuntimeError as error:
            log.error(
                "an event of an observed task is lost, because the observer's thread could "
                "not start: %s",
                error,
                extra={"action": "observer_not_started"},
            )

    def close(self) -> None:
        """Write the remaining observations, for at most five seconds."""
        if not self._backlog.close(_SHUTDOWN_S):
            log.error(
                "some events of observed tasks are lost: at the worker's end, Redis did not "
                "store all of them within %g s",
                _SHUTDOWN_S,
                extra={"action": "observations_left"},
            )

    def _run(self, waiting: queue.Queue[Observation | None]) -> None:
        interval_s = self._yard.watching.settings.lease_s / 3
        while True:
            try:
                seen = waiting.get(timeout=_LOOK_S if self._early else interval_s)
            except queue.Empty:
                if not self._early:
                    self._safely(self._renew)
            else:
                if seen is None:
                    self._write_early(all_of_them=True)
                    return
                self._safely(self._write, seen)
            self._write_early()

    def _write_early(self, *, all_of_them: bool = False) -> None:
        for until_s, ended in tuple(self._early):
            over = all_of_them or SYSTEM_CLOCK.monotonic_s() >= until_s
            if over or not self._overtakes(ended.delivery):
                self._early.remove((until_s, ended))
                self._safely(self._finish, ended)

    def _overtakes(self, delivery: Watched) -> bool:
        """Return whether an earlier delivery of the same job has not ended yet.

        Nothing waits for the end of that delivery: later observations are written at once.
        """
        for holder, (job_id, _) in self._running.items():
            if holder == delivery.holder:
                return False
            if job_id == delivery.job_id:
                return delivery.holder in self._running
        return False

    def _safely(self, act: Any, *arguments: Any) -> None:
        try:
            act(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, the app must not notice
            # Nothing waits for it: what is observed next is tried at once.
            self._yard.backoff.failed(_OBSERVE, error, action="observation_failed")
        else:
            self._yard.backoff.succeeded(_OBSERVE)

    def _renew(self) -> None:
        for job_id, run in list(self._running.values()):
            if run is not None:
                self._yard.watching.attempts.renew(job_id, run.token)

    def _write(self, seen: Observation) -> None:
        if isinstance(seen, DeadBeforeStart) and not seen.delivery.job_id:
            self._dead_letter_unidentified(seen)
            return
        seen = replace(seen, delivery=self._accounted(seen.delivery))
        match seen:
            case Started(delivery):
                self._begin(delivery)
            case Ended(delivery) if self._overtakes(delivery):
                self._early.append((SYSTEM_CLOCK.monotonic_s() + _ORDER_S, seen))
            case Ended():
                self._finish(seen)
            case Requeued(delivery, lost):
                self._let_go(delivery, lost)
            case DeadBeforeStart(delivery, outcome, message):
                self._dead_letter(delivery, outcome, message)

    def _accounted(self, delivery: Watched) -> Watched:
        """Return the delivery with the id of its record.

        If a job of another task has the same id, the record gets an id of its own. Celery
        runs both. While that other job lives the two share one record, since a task may
        have replaced itself by another.
        """
        if delivery.holder in self._running:
            return replace(delivery, job_id=self._running[delivery.holder][0])
        record = self._yard.records.read(delivery.job_id)
        reused = reuse_in(record, delivery.job_type)
        if reused is None or record.state not in _OVER:
            return delivery
        own = reused_id(delivery.job_id, delivery.job_type, reused.epoch)
        return replace(delivery, job_id=own)

    # -- what is written -----------------------------------------------------------------------

    def _begin(self, delivery: Watched) -> None:
        record = self._yard.records.read(delivery.job_id)
        answer = self._ask(delivery, record, delivery.holder)
        if isinstance(answer, Held):
            # Two deliveries run at once, which observing does not prevent: one record for both.
            answer = self._ask(delivery, record, record.fields.get("holder", ""))
        if isinstance(answer, Run):
            self._running[delivery.holder] = (delivery.job_id, answer)

    def _ask(self, delivery: Watched, record: Record, holder: str) -> Any:
        return self._yard.watching.attempts.begin(
            delivery.job_id,
            _position(record),
            holder=holder,
            worker=delivery.worker,
            job_type=delivery.job_type,
            queue=delivery.queue,
            process=record.fields.get("process", "") if holder != delivery.holder else "",
        )

    def _finish(self, ended: Ended) -> None:
        delivery, decision, facts = ended.delivery, ended.decision, ended.facts
        if self._running.get(delivery.holder, ("", True))[1] is None:
            self._begin(delivery)
        answer = self._decide(delivery, decision, facts)
        if isinstance(answer, Superseded) and answer.state not in TERMINAL:
            # Celery publishes a retry before it ends the attempt: the first of the two has closed
            # the record that they share.
            self._begin(delivery)
            self._decide(delivery, decision, facts)
        if ended.message is not None:
            self._post(delivery.job_id, ended.message)

    def _decide(self, delivery: Watched, decision: Decision, facts: dict[str, Any]) -> Any:
        _, run = self._running.pop(delivery.holder, ("", None))
        if run is None:
            return None
        for holder, (job_id, shared) in self._running.items():
            if job_id == delivery.job_id and shared == run:
                self._running[holder] = (job_id, None)
        return self._yard.watching.attempts.finish(
            delivery.job_id,
            decision,
            epoch=run.epoch,
            generation=run.generation,
            seq=run.seq,
            token=run.token,
            **facts,
        )

    def _let_go(self, delivery: Watched, lost: str | None) -> None:
        _, run = self._running.pop(delivery.holder, ("", None))
        if run is None:
            return
        if lost is None:
            self._yard.watching.attempts.release(delivery.job_id, delivery.holder)
        else:
            self._yard.watching.attempts.lose(delivery.job_id, delivery.holder, lost)

    def _dead_letter(self, delivery: Watched, outcome: Any, message: RawMessage) -> None:
        records = self._yard.watching
        answer = records.attempts.dead_letter(
            delivery.job_id,
            _position(records.read(delivery.job_id)),
            job_type=delivery.job_type,
            queue=delivery.queue,
            **death_of(outcome),
        )
        if isinstance(answer, Decided):
            self._post(delivery.job_id, message)

    def _dead_letter_unidentified(self, seen: DeadBeforeStart) -> None:
        letter = unidentified_letter(
            seen.message,
            seen.outcome,
            job_type=seen.delivery.job_type,
            queue=seen.delivery.queue,
            now_us=self._yard.watching.now_us(),
            delivered_before=seen.delivered_before,
        )
        self._yard.watched_letters.post(letter)

    def _post(self, job_id: str, message: RawMessage) -> None:
        record = self._yard.records.read(job_id)
        if record.state is State.DEAD_LETTERED:
            self._yard.watched_letters.post(build_letter(record, message))


def _position(record: Record) -> Stamp | None:
    """Return the record's position; Celery's own retries and replacements have no stamp."""
    if record.state is State.NONE:
        return None
    return Stamp(record.epoch, record.generation, record.number("seq"))
