"""Read what operators did to the jobs of a storm: from Postgres, the effects and the replies."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from kombu import Queue
from sqlalchemy import text

from chaos.cluster import Cluster
from chaos.effects import EFFECTS
from chaos.verbs import Done, Effect, History, Reply, Row
from taskyard.access import Action
from taskyard.broker import connection as broker_connection
from taskyard.jobs.states import Event, State

__all__ = ["open_intents", "other_rows", "read_histories"]

_EVENTS: Final = """
    SELECT job_id, event, extract(epoch FROM at), detail->>'token' FROM job_events
    ORDER BY job_id, epoch, version
"""
_ROWS: Final = """
    SELECT coalesce(target_request_id, ''), request_id, action_type, outcome, detail
    FROM operator_audit_log ORDER BY id
"""
_INBOX: Final = "SELECT job_id, extract(epoch FROM at), token FROM chaos_effects"
_OPEN: Final = """
    SELECT concat_ws(' ', kind, job_id, last_error) FROM outbox WHERE done_at IS NULL
    ORDER BY position
"""


def open_intents(cluster: Cluster) -> list[str]:
    """What the relay has not carried out, each with why it waits."""
    with cluster.engine.connect() as connection:
        return list(connection.scalars(text(_OPEN)))


def read_histories(cluster: Cluster, states: Mapping[str, State]) -> dict[str, History]:
    """The history of each job; its replies are taken out of their queue."""
    events: dict[str, list[Done]] = defaultdict(list)
    rows: dict[str, list[Row]] = defaultdict(list)
    with cluster.engine.connect() as connection:
        for job, event, at, token in connection.execute(text(_EVENTS)):
            events[job].append(Done(Event(event), float(at), None if token is None else int(token)))
    for job, row in _rows(cluster):
        rows[job].append(row)
    effects, replies = _effects(cluster), _replies(cluster)
    return {
        job: History(
            state,
            events[job],
            rows[job],
            effects[job],
            None if replies is None else replies[job],
        )
        for job, state in states.items()
    }


def other_rows(cluster: Cluster, jobs: Collection[str]) -> list[Row]:
    """The audit rows of requests that are for none of `jobs`: of switches, and of whole queues."""
    return [row for target, row in _rows(cluster) if target not in jobs]


def _rows(cluster: Cluster) -> Iterator[tuple[str, Row]]:
    with cluster.engine.connect() as connection:
        for target, request, action, outcome, detail in connection.execute(text(_ROWS)):
            yield target, Row(uuid.UUID(str(request)), Action(action), outcome, detail or {})


def _effects(cluster: Cluster) -> Mapping[str, Sequence[Effect]]:
    found: dict[str, list[Effect]] = defaultdict(list)
    with cluster.engine.connect() as connection:
        for job, at, token in connection.execute(text(_INBOX)):
            found[job].append(Effect(float(at), token, inbox=True))
    entries: Any = cluster.effects_log.lrange(EFFECTS, 0, -1)
    for note in map(json.loads, entries):
        found[note["job"]].append(Effect(note["at"], note["token"], inbox=False))
    return found


def _replies(cluster: Cluster) -> Mapping[str, Sequence[Reply]] | None:
    if cluster.reply_to is None:
        return None
    found: dict[str, list[Reply]] = defaultdict(list)
    with broker_connection(cluster.settings) as connection:
        queue: Any = Queue(cluster.reply_to, channel=connection.default_channel)
        for message in iter(lambda: queue.get(no_ack=True), None):
            body = message.payload
            reply = Reply(message.properties["message_id"], body["state"])
            found[body["job_id"]].append(reply)
    return found
