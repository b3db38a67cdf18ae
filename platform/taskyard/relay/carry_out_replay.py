"""Carry out replays: check each, change all records in one round trip, publish together.

Each step may be repeated after a crash: a record that a request has changed answers the same, and
of two equal messages only one can begin.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import RedisError
from sqlalchemy import Connection

from taskyard import errors
from taskyard.broker import Outgoing
from taskyard.control.replayed_message import Edit, captured, edited, for_job
from taskyard.errors import PublishFailed, TaskyardError, TransitionRefused, UnknownQueue
from taskyard.outbox import Intent
from taskyard.queues import fitting_priority
from taskyard.records import ReplayCall
from taskyard.relay.ports import Opened, Ports
from taskyard.relay.read_letters import read_letters
from taskyard.relay.results import Applied, Failed, Postponed, Refused, Result
from taskyard.settings import Settings
from taskyard.wire import RawMessage, Stamp, unpack

__all__ = ["REFUSALS", "carry_out_replays", "unreached"]

REFUSALS: Final = (errors.Refused, TransitionRefused, UnknownQueue)
# A replay was requested now: the sender's old deadlines no longer apply.
_STRIPPED: Final = ("expires", "eta")


@dataclass(frozen=True, slots=True)
class _Replay:
    """Everything that a replay needs, from its intent and its dead letter."""

    call: ReplayCall
    message: RawMessage

    def outgoing(self, opened: Opened) -> Outgoing:
        """Return the message of the generation that was opened."""
        call = self.call
        stamp = Stamp(
            epoch=call.epoch,
            generation=opened.generation,
            seq=opened.seq,
            sent_us=opened.now_us,
            policy=_policy(self.message),
        )
        message = self.message
        return Outgoing(message, call.queue, call.priority, call.job_id, stamp, strip=_STRIPPED)


def unreached(error: Exception) -> Postponed:
    """Return the result of an intent whose record could not be read or changed."""
    return Postponed(f"the record could not be reached: {error}")


def carry_out_replays(
    connection: Connection, ports: Ports, intents: Sequence[Intent]
) -> dict[uuid.UUID, Result]:
    """Carry out replays; an intent without a result is left to the next batch."""
    results: dict[uuid.UUID, Result] = {}
    ready: dict[uuid.UUID, _Replay] = {}
    checks = _QueueChecks(ports)
    for intent, letter in _with_letters(connection, intents, results):
        prepared = _prepared(intent, letter, ports.settings, checks)
        if isinstance(prepared, _Replay):
            ready[intent.id] = prepared
        else:
            results[intent.id] = prepared
    opened = _open(ports, ready, results)
    _publish(ports, ready, opened, results)
    return results


def _with_letters(
    connection: Connection, intents: Sequence[Intent], results: dict[uuid.UUID, Result]
) -> list[tuple[Intent, Mapping[str, Any] | None]]:
    """Return the intents whose letters fit into one batch, each with its letter, if there is one.

    An intent that names no letter gets its result.
    """
    named: dict[uuid.UUID, uuid.UUID] = {}
    for intent in intents:
        try:
            named[intent.id] = uuid.UUID(intent.payload["letter_id"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            results[intent.id] = Failed(error)
    letters = read_letters(connection, list(named.values()))
    wanted = [(intent, named[intent.id]) for intent in intents if intent.id in named]
    return [(intent, letters[letter]) for intent, letter in wanted if letter in letters]


def _prepared(
    intent: Intent, letter: Mapping[str, Any] | None, settings: Settings, checks: _QueueChecks
) -> _Replay | Result:
    """Check everything that could stop the publication after the record was changed."""
    try:
        replay = _replay(intent, letter, settings)
        checks.check(replay.call.queue)
    except REFUSALS as error:
        return Refused(error)
    except PublishFailed as error:
        return Postponed(str(error))
    except RedisError as error:
        return unreached(error)
    except Exception as error:  # noqa: BLE001 - a defect that shows in this intent alone
        return Failed(error)
    return replay


def _replay(intent: Intent, letter: Mapping[str, Any] | None, settings: Settings) -> _Replay:
    if letter is None:
        raise errors.Refused(f"dead letter {intent.payload['letter_id']} is past its retention")
    message = for_job(captured(letter), intent.job_id)
    edit = intent.payload["edit"]
    queue = intent.payload["queue"] or letter["queue"]
    _check_packed(message)
    call = ReplayCall(
        job_id=intent.job_id,
        epoch=intent.epoch,
        generation=letter["generation"],
        request_id=str(intent.id),
        job_type=letter["job_type"],
        queue=queue,
        priority=_priority(settings, queue, letter),
    )
    return _Replay(call, _edited(message, edit, settings))


class _QueueChecks:
    """Whether workers read a queue, asked once for each queue of a batch."""

    def __init__(self, ports: Ports) -> None:
        self._queues = ports.queues
        self._known: dict[str, Exception | None] = {}

    def check(self, queue: str) -> None:
        """Raise what `QueuesPort.check` raises."""
        if self._queues is None:
            return
        if queue not in self._known:
            self._known[queue] = self._ask(self._queues.check, queue)
        error = self._known[queue]
        if error is not None:
            raise error

    def _ask(self, check: Any, queue: str) -> Exception | None:
        try:
            check(queue)
        except (TaskyardError, RedisError) as error:
            return error
        return None


def _open(
    ports: Ports, ready: Mapping[uuid.UUID, _Replay], results: dict[uuid.UUID, Result]
) -> dict[uuid.UUID, Opened]:
    """Open the generations in the records, each in one step (compare-and-set)."""
    opened: dict[uuid.UUID, Opened] = {}
    if not ready:
        return opened
    try:
        answers = ports.records.replay_many([replay.call for replay in ready.values()])
    except (RedisError, errors.ServerUnreachable, errors.ServerRefused) as error:
        results.update(dict.fromkeys(ready, unreached(error)))
        return opened
    for request, answer in zip(ready, answers, strict=True):
        if isinstance(answer, errors.Refused):
            results[request] = Refused(answer)
        elif isinstance(answer, RedisError):
            results[request] = unreached(answer)
        else:
            opened[request] = answer
    return opened


def _publish(
    ports: Ports,
    ready: Mapping[uuid.UUID, _Replay],
    opened: Mapping[uuid.UUID, Opened],
    results: dict[uuid.UUID, Result],
) -> None:
    """Publish the messages.

    The records have been changed, so from here on an intent may be postponed, never refused.
    """
    messages = [ready[request].outgoing(answer) for request, answer in opened.items()]
    failed = _published(ports, messages)
    for (request, answer), error in zip(opened.items(), failed, strict=True):
        detail = {"generation": answer.generation, "queue": ready[request].call.queue}
        results[request] = Applied(detail) if error is None else Postponed(str(error))


def _published(ports: Ports, messages: Sequence[Outgoing]) -> Sequence[TaskyardError | None]:
    """Publish messages together; return an error for each that the broker has not confirmed."""
    if not messages:
        return []
    try:
        return ports.publisher.publish_many(messages)
    except TaskyardError as error:
        if len(messages) == 1:
            return [error]
    # One of them cannot be published at all, and says nothing about the others.
    return [error for one in messages for error in _published(ports, [one])]


def _edited(message: RawMessage, edit: Any, settings: Settings) -> RawMessage:
    if edit is None:
        return message
    return edited(message, Edit(**edit), settings.max_unpacked_bytes)


def _check_packed(message: RawMessage) -> None:
    """Raise `Refused` if headers or properties hold packed values that Taskyard did not write."""
    try:
        unpack([message.headers, message.properties])
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise errors.Refused(
            "the letter's headers or properties hold packed values that cannot be read "
            f"({type(error).__name__}: {error}); enqueue a new job"
        ) from error


def _priority(settings: Settings, queue: str, row: Mapping[str, Any]) -> int | None:
    """Return the dead letter's priority within the queue's range.

    A redirect may lead to a queue with a smaller range. In the queue of an existing app, which no
    setting names, the message keeps its own priority.
    """
    if queue == row["queue"] and queue not in settings.queues:
        return None
    priority: int | None = row["priority"]
    return fitting_priority(priority, settings.queue(queue))


def _policy(message: RawMessage) -> Mapping[str, object] | None:
    try:
        stamp = Stamp.read(message.headers)
    except ValueError:
        return None  # a broken stamp has no policy; the new stamp replaces it
    return None if stamp is None else stamp.policy
