"""Every cause why a job is where it is: its text, the servers that know it, and what moves the job.

This is the only place where causes are written down. `docs/cli.md` has the same list, and tests
compare the two and run the commands. Where several causes hold, the one that is listed first here
blocks the job: until it is gone, the others do not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from taskyard.control.explain.cause_kinds import CauseKind, Meaning, Server

__all__ = ["CAUSES"]


_R, _B, _P = Server.RECORDS, Server.BROKER, Server.POSTGRES
_RECORDS: Final = frozenset({_R})
_BROKER: Final = frozenset({_R, _B})
_POSTGRES: Final = frozenset({_P})
_BOTH: Final = frozenset({_R, _P})
_ALL: Final = frozenset(Server)
_NOTHING: Final[frozenset[Server]] = frozenset()
_WHY: Final = '--reason "WHY"'
_CANCEL: Final = f"taskyard jobs cancel {{job}} {_WHY}"
_ABORT: Final = f"taskyard jobs abort {{job}} {_WHY}"
_REROUTE: Final = f"taskyard jobs reroute {{job}} --queue OTHER_QUEUE {_WHY}"
_REPLAY: Final = f"taskyard dlq replay {{letter}} {_WHY}"
_LETTER: Final = "taskyard dlq show {letter}"
_AUDIT: Final = "taskyard audit show {request}"
_START: Final = "{start_worker}"
_AGAIN: Final = "taskyard explain {job}"

K = CauseKind
CAUSES: Final[Mapping[CauseKind, Meaning]] = {
    K.COMPLETED: Meaning(
        "completed {ended}{by}",
        _NOTHING,
        waits="it has ended",
        see="taskyard jobs wait {job}",
    ),
    K.CANCELLED: Meaning(
        "cancelled {ended}{by}",
        _NOTHING,
        waits="it has ended; to run it, enqueue it again",
        see="taskyard audit list --job {job}",
    ),
    K.ABORTED: Meaning(
        "aborted {ended}{by}",
        _NOTHING,
        waits="it has ended; to run it, enqueue it again",
        see="taskyard audit list --job {job}",
    ),
    K.FAILED: Meaning(
        "failed {ended}: its dead letter was deleted{by}",
        _NOTHING,
        waits="it has ended; to run it, enqueue it again",
        see="taskyard jobs show {job}",
    ),
    K.LETTER: Meaning(
        "it failed for good {died}: {category}, {cause}. Its dead letter {letter} is {status} and "
        "can be replayed",
        _POSTGRES,
        (_REPLAY,),
        see=_LETTER,
    ),
    K.LETTER_NEEDS_PAYLOAD: Meaning(
        "it failed for good {died}: {category}, {cause}. Its dead letter {letter} is {status}; a "
        "replay needs a corrected payload",
        _POSTGRES,
        (f"{_REPLAY} --payload @corrected.json",),
        see=_LETTER,
    ),
    K.LETTER_NEEDS_FORCE: Meaning(
        "it failed for good {died}: {category}, {cause}. Its dead letter {letter} is {status} and "
        "not eligible for a replay, unless it is forced",
        _POSTGRES,
        (f"{_REPLAY} --force",),
        see=_LETTER,
    ),
    K.LETTER_NOT_REPLAYABLE: Meaning(
        "it failed for good {died}: {category}, {cause}. Its dead letter {letter} cannot be "
        "replayed: {why_not}",
        _POSTGRES,
        waits="enqueue it again, if it must still run",
        see=_LETTER,
    ),
    K.LETTER_NOT_STORED: Meaning(
        "it failed for good {died}: {cause}. Its dead letter {letter} is not in Postgres yet: the "
        "mirror is behind, or none runs",
        _BOTH,
        ("taskyard mirror",),
        see="taskyard check",
    ),
    K.LETTER_UNREAD: Meaning(
        "it failed for good {died}: {cause}. Postgres, which has its dead letter {letter}, does "
        "not answer",
        _RECORDS,
        waits="replay it when Postgres answers",
        see="taskyard check",
    ),
    K.RECORDS_SILENT: Meaning(
        "unknown: whether it waits, runs or has ended, and which switches are on. {why}",
        _NOTHING,
        waits="start the server, or wait for it; it loses no job meanwhile",
        see="taskyard check",
    ),
    K.BROKER_SILENT: Meaning(
        "unknown: where its message is, and which workers read its queue. {why}",
        _NOTHING,
        waits="start the server, or wait for it; workers go on when it answers",
        see="taskyard check",
    ),
    K.CANCEL_REQUESTED: Meaning(
        "its attempt was asked to stop {asked}{by}; how the attempt ends decides",
        _RECORDS,
        (_ABORT,),
        waits="to end it now, kill its attempt",
        see=_AUDIT,
    ),
    K.RUNNING: Meaning(
        "attempt {attempt} has run since {started}; worker {worker} has the lease until {until} "
        "and renews it",
        _RECORDS,
        (_CANCEL, _ABORT),
        waits="it ends by itself; these commands end it sooner",
    ),
    K.WORKER_DEAD: Meaning(
        "attempt {attempt} began {started}; its worker {worker} is dead, and its lease is valid "
        "until {until}. Its message: {message}",
        _RECORDS,
        (_START,),
        waits="it begins again after the lease, at a worker that reads the queue",
    ),
    K.LEASE_EXPIRED: Meaning(
        "attempt {attempt} began {started}; the lease of its worker {worker}, which {lives}, "
        "expired {until}. Its message: {message}",
        _RECORDS,
        (_START,),
        waits="it begins again at a worker that reads the queue",
    ),
    K.GATE_CLOSED: Meaning(
        "the gate is closed, so no operator's action is carried out: {why}",
        _BOTH,
        ("taskyard reconcile", f"taskyard reconcile --accept {_WHY}"),
    ),
    K.PAUSED: Meaning(
        "queue {queue} has been paused since {since}{until}, by {operator}: {reason}",
        _RECORDS,
        (f"taskyard queues resume {{queue}} {_WHY}",),
    ),
    K.KILLED: Meaning(
        "the kill switch on {on} has held it since {since}{until}, by {operator}: {reason}",
        _RECORDS,
        (f"taskyard kill off {{on}} {_WHY}",),
    ),
    K.HELD_AS_NEW: Meaning(
        "the kill switch on {on} has refused new jobs since {since}{until}, and this one came "
        "later by a way that cannot be refused, so it waits. By {operator}: {reason}",
        _RECORDS,
        (f"taskyard kill off {{on}} {_WHY}",),
    ),
    K.REQUEST_OPEN: Meaning(
        "{verb} was requested {asked}{by} and is not carried out yet: {why}",
        _POSTGRES,
        ("taskyard relay",),
        waits="a relay carries it out; start one if none runs",
        see=_AUDIT,
    ),
    K.UNPUBLISHED: Meaning(
        "it was admitted {admitted}, but the broker has not confirmed its message",
        _RECORDS,
        ("taskyard reconcile --repair",),
        waits="this publishes it, from a minute after its admission; so does enqueueing it again "
        "under its key",
    ),
    K.MESSAGE_MISSING: Meaning(
        "no message continues it: none is in a queue, in the delay store or with a worker",
        _BROKER,
        ("taskyard reconcile --repair", _CANCEL),
        waits="the first publishes it again, if there is a copy; without one, cancel the job and "
        "enqueue it anew",
        see="taskyard reconcile",
    ),
    K.MESSAGE_MOVES: Meaning(
        "its message was not found; it last changed {touched}, and a message may be on its way "
        "for {grace} s",
        _BROKER,
        waits="ask again in a minute",
        see=_AGAIN,
    ),
    K.MESSAGE_ELSEWHERE: Meaning(
        "where its message is cannot be seen from here: {why}",
        _BROKER,
        (_START,),
        waits="workers of that queue run it; see whether one is up",
        see="taskyard queues list",
    ),
    K.MESSAGE_UNSEEN: Meaning(
        "where its message is is unknown: {why}",
        _RECORDS,
        waits="ask again, or wait: nothing says that it is lost",
        see=_AGAIN,
    ),
    K.HELD_BY_DEAD: Meaning(
        "its message is {message}",
        _BROKER,
        (_START,),
        waits="a worker of the same queue brings it back",
    ),
    K.REROUTED: Meaning(
        "it was moved to queue {queue}{by}; its message is still in {old}, and the worker that "
        "takes it there forwards it",
        _RECORDS,
        (_START,),
        waits="a worker that reads the old queue moves it",
    ),
    K.OLD_QUEUE_UNREAD: Meaning(
        "it was moved to queue {queue}{by}; its message is still in queue {old}, which no worker "
        "reads",
        _ALL,
        ("taskyard queues forward {old}", _START),
        waits="the first moves its message now; a worker that reads queue {old} does it too",
    ),
    K.REPLACED: Meaning(
        "its task put another task in its place; the job continues after that one",
        _RECORDS,
        waits="explain the task that replaces it",
        see="taskyard jobs show {job}",
    ),
    K.RETRY_AT: Meaning(
        "attempt {attempt} failed with {cause}; the next begins {due}",
        _RECORDS,
        (_CANCEL,),
        waits="a worker runs it when it is due; no command runs it sooner; this one ends it",
    ),
    K.SCHEDULED: Meaning(
        "it was enqueued for later: it waits in the delay store, due {due}",
        _BROKER,
        (_CANCEL,),
        waits="a worker runs it when it is due; no command runs it sooner; this one ends it",
    ),
    K.PARKED: Meaning(
        "its message waits {place} until {switch} is off",
        _BROKER,
        waits="it comes back within {back} after that",
        see=_AGAIN,
    ),
    K.NO_CONSUMER: Meaning(
        "no worker reads queue {queue}. {workers}",
        _BROKER,
        (_START,),
    ),
    K.CONSUMERS_UNKNOWN: Meaning(
        "whether a worker reads queue {queue} is unknown: some worker does not say what it reads",
        _BROKER,
        (_START,),
        see="taskyard queues list",
    ),
    K.PREFETCHED: Meaning(
        "{holder} has taken it from queue {queue} and not begun it: its processes are busy",
        _BROKER,
        waits="it begins when a process is free, and goes back if none gets free",
    ),
    K.QUEUED: Meaning(
        "{before} in queue {queue}, where {waiting} wait",
        _BROKER,
        (_START, _REROUTE),
        waits="it runs in its turn; one more worker, or another queue, is sooner",
    ),
    K.QUEUED_BEHIND_AT_LEAST: Meaning(
        "at least {ahead} messages are before it in queue {queue}, where {waiting} wait; it was "
        "not among those that were searched",
        _BROKER,
        (_START, _REROUTE),
        waits="it runs in its turn; one more worker, or another queue, is sooner",
    ),
    K.QUEUED_AT_RABBITMQ: Meaning(
        "at most {waiting} messages are before it in queue {queue}: RabbitMQ does not say which, "
        "nor whether the job waits for its time, or was taken by a worker that has not begun it",
        _BROKER,
        (_START, _REROUTE),
        waits="it runs in its turn; one more worker, or another queue, is sooner",
    ),
    K.CONSUMERS_BUSY: Meaning(
        "{consumers} queue {queue}{held}; none has taken this job yet",
        _BROKER,
        (_START,),
        waits="each takes its next job when one ends",
    ),
    K.STALE_MESSAGE: Meaning(
        "an older message of it exists too (epoch, generation, seq: {stale}); the worker that "
        "takes it drops it",
        _BROKER,
        waits="a stale message changes nothing",
    ),
    K.NO_RECORD_YET: Meaning(
        "it has no record yet: it was not sent by `enqueue`, and no worker has begun it",
        _BROKER,
        waits="the worker that begins it makes the record",
    ),
    K.RECORD_LOST: Meaning(
        "Postgres has it as {state}, last changed {changed}, and Redis has no record of it: Redis "
        "lost it, or the mirror has not seen its end",
        _BOTH,
        ("taskyard reconcile --repair",),
        see="taskyard reconcile",
    ),
    K.LEDGER_ONLY: Meaning(
        "Postgres had it as {state}, changed {changed}; that may be behind",
        _POSTGRES,
        waits="its state now is in Redis alone",
        see=_AGAIN,
    ),
    K.UNKNOWN_ID: Meaning(
        "no job has this id: none was ever enqueued under it here, or it ended longer ago than "
        "jobs are kept ({kept} days){unless}",
        _BOTH,
        waits="compare the id; an id of another namespace is unknown here",
        see="taskyard jobs list",
    ),
    K.POSTGRES_SILENT: Meaning(
        "unknown: its history, its dead letter, and whether operators have requested something. "
        "{why}",
        _NOTHING,
        waits="start the server, or wait for it; jobs run on without it",
        see="taskyard check",
    ),
}
