"""What the broker says of a job: where its message is, and how many messages are before it.

RabbitMQ cannot be searched, so it gives the number of messages and of workers alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

import redis

from taskyard.broker import Layout, ParkedMessages, is_amqp, own_layout
from taskyard.broker.connection import check_broker_url
from taskyard.clock import SYSTEM_CLOCK, us_of
from taskyard.control.explain.job_facts import FromBroker, FromRecords, Where
from taskyard.errors import TaskyardError
from taskyard.inspection.broker_keys_to_search import MessageLocations, survey
from taskyard.inspection.find_messages import Messages, find_held, find_of_job, note_message
from taskyard.inspection.job_holder import find_holder
from taskyard.inspection.message_after_worker_death import MessageState, Place
from taskyard.inspection.queue_counts import QueueState
from taskyard.inspection.queue_of_job import state_of
from taskyard.inspection.queue_position import QueueSearch
from taskyard.inspection.record_fields import read_records
from taskyard.inspection.search_budget import Budget
from taskyard.inspection.unacked_message_owners import Holders, look_for_holders
from taskyard.jobs.states import State
from taskyard.queues import broker_priority
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.store import BROKER, connect, reachable
from taskyard.transport import owner_of

__all__ = ["SEARCH_S", "read_broker"]

SEARCH_S: Final = 2.0
"""How long the broker is searched for one job's message."""
# The states in which a message brings the job to a worker, or brings it back.
_WITH_MESSAGE: Final = frozenset({State.ACCEPTED, State.RUNNING, State.RETRYING, State.REROUTED})


def read_broker(
    settings: Settings,
    records: Records,
    job_id: str,
    said: FromRecords | None,
    queue: str,
    old_queue: str = "",
) -> FromBroker | None:
    """Return where the job's message is; None for a job that needs none.

    `old_queue` is the one out of which a rerouted job was moved; empty if it is unknown. Without
    the records only the queue is known. Raises Taskyard's errors of the broker, and redis-py's of
    the records.
    """
    state = State.NONE if said is None else said.record.state
    if state is not State.NONE and state not in _WITH_MESSAGE:
        return None
    counts = _counts(settings, queue)
    if said is None:
        return FromBroker(Where.UNSEEN, queue, counts, why="the records do not answer")
    if state is State.RUNNING:
        hands = find_holder(settings, records, said.record)
        death = None if hands is None else hands.message
        return FromBroker(Where.LIVE_WORKER, queue, counts, death=death)
    if is_amqp(settings):
        old = _counts(settings, old_queue) if state is State.REROUTED else None
        return FromBroker(Where.RABBITMQ, queue, counts, old=old)
    url = check_broker_url(settings)
    client = connect(url, retries=0, variable=BROKER, timeout_s=SEARCH_S)
    with closing(client), reachable(url, variable=BROKER):
        search = _Search(settings, records, client, job_id, queue)
        found = search.run()
    other = found.queue != queue
    return replace(found, state=_counts(settings, found.queue) if other else counts)


def _counts(settings: Settings, queue: str) -> QueueState | None:
    if not queue:
        return None
    found = state_of(settings, queue)
    if isinstance(found, TaskyardError):
        raise found
    return found


class _Search:
    """The search of a Redis broker for one job that waits."""

    def __init__(
        self,
        settings: Settings,
        records: Records,
        client: redis.Redis,
        job_id: str,
        queue: str,
    ) -> None:
        self._settings, self._records, self._client = settings, records, client
        self._where: MessageLocations = survey(settings, records, client, [queue])
        (self._seen,) = read_records(records.client, records.keys, [job_id])
        self._queue = queue
        self._budget = Budget(SYSTEM_CLOCK, SEARCH_S)
        self._found = Messages()
        self._parked = ParkedMessages(settings.namespace, client)

    def run(self) -> FromBroker:
        """Return where the message is: with a worker, in the delay store, in its queue."""
        held = find_held(self._client, self._where, self._budget)
        count = None if self._budget.spent else sum(map(len, held.held.values()))
        own = Messages()
        own.merge(held)
        self._found.stamps[self._seen.job_id] |= held.stamps.get(self._seen.job_id, set())
        answer = self._held(own) or self._delayed() or self._queued() or self._anywhere()
        return replace(answer, held=count, stale=self._found.stale(self._seen))

    def _held(self, held: Messages) -> FromBroker | None:
        holding = held.holding(self._seen)
        if not holding:
            return None
        holders = look_for_holders(self._settings, self._records, self._client, self._where)
        first = holding[0]
        taken_s: Any = self._client.zscore(first.index, first.tag)
        back = holders.judge(first, self._seen, us_of(float(taken_s or 0)))
        if back is not None:
            death = MessageState(Place.DEAD_WORKER, back)
            return FromBroker(Where.DEAD_WORKER, self._queue, death=death)
        holder = _holder(holders, first.tag)
        return FromBroker(Where.LIVE_WORKER, self._queue, holder=holder)

    def _delayed(self) -> FromBroker | None:
        """Look for the message under each name that it can have in the delay store."""
        _, generation, seq = self._seen.position
        job, prefix = self._seen.job_id, f"{self._settings.namespace}:delayed"
        members = [f"{job}:{generation}:{at}" for at in (seq, seq + 1)]
        if self._seen.state in (State.REROUTED, State.NONE) and generation:
            members.append(f"{job}:{generation - 1}:0")
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hmget(f"{prefix}:messages", members)
            for member in members:
                pipe.zscore(prefix, member)
            entries, *scores = pipe.execute()
        for member, entry, due_ms in zip(members, entries, scores, strict=True):
            if entry is not None and due_ms is not None:
                key, _, raw = entry.partition(b"\n")
                note_message(self._found, json.loads(raw), f"{prefix}:messages")
                if self._found.waits(self._seen):
                    queue = self._queue_of(key.decode("utf-8", "replace")) or self._queue
                    due_us, parked = int(due_ms) * 1000, self._parked.holding(member)
                    return FromBroker(Where.DELAYED, queue, due_us=due_us, parked=parked)
        return None

    def _queued(self) -> FromBroker | None:
        for layout, name in self._layouts():
            search = QueueSearch(self._client, layout.keys(name), self._budget)
            place = search.find(self._seen, self._found, self._likely(layout, name))
            if place is not None:
                return FromBroker(Where.QUEUE, self._queue, place=place)
        return None

    def _anywhere(self) -> FromBroker:
        """Search all other queues, as long as there is time left."""
        self._found.merge(find_of_job(self._client, self._where, self._seen, self._budget))
        key = self._found.waits_at(self._seen)
        if key is not None:
            self._queue = self._queue_of(key) or self._queue
            return self._queued() or FromBroker(Where.QUEUE, self._queue)
        if self._found.holding(self._seen):
            return FromBroker(Where.LIVE_WORKER, self._queue, holder="a worker")
        if self._budget.spent:
            why = f"too many messages wait to find it within {SEARCH_S:g} s"
            return FromBroker(Where.UNSEEN, self._queue, why=why)
        unseen = self._where.why_unseen(self._queue) if self._queue else None
        if unseen is not None:
            return FromBroker(Where.ELSEWHERE, self._queue, why=unseen)
        return FromBroker(Where.NOWHERE, self._queue)

    def _layouts(self) -> list[tuple[Layout, str]]:
        """Return each way in which workers read the job's queue, with its name at the broker."""
        if not self._queue:
            return []
        ways = [(one, name) for name, one in self._where.layouts if name == self._queue]
        if self._queue in self._settings.queues:
            own = (own_layout(self._settings), self._settings.broker_name(self._queue))
            return [own, *(way for way in ways if way != own)]
        return ways or [(own_layout(self._settings), self._queue)]

    def _likely(self, layout: Layout, name: str) -> str:
        """Return the list of the job's priority; empty if the record does not know it."""
        priority, known = self._seen.texts["priority"], self._settings.queues.get(self._queue)
        if not priority.isdigit() or known is None:
            return ""
        return layout.key(name, layout.step(broker_priority(known, int(priority))))

    def _queue_of(self, key: str) -> str:
        """Return the queue that a list belongs to, by the settings' name; empty if unknown."""
        for queue in self._settings.queues:
            if key in own_layout(self._settings).keys(self._settings.broker_name(queue)):
                return queue
        named = [name for name, layout in self._where.layouts if key in layout.keys(name)]
        return named[0] if named else ""


def _holder(holders: Holders, tag: str) -> str:
    """Return who holds a message, for a person."""
    owner = owner_of(tag)
    if owner:
        return f"worker process {owner.rpartition('.')[0]}"
    names: Sequence[str] = [one.worker for one in holders.members if tag in one.held]
    return f"worker {names[0]}" if names else "a worker that does not say its name"
