"""Running jobs whose worker is dead: where the message of each is, and what happens next.

`taskyard check`, `jobs show` and `reconcile` ask here, so that they say the same about a job.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, assert_never

import redis

from taskyard.clock import from_us, us_of
from taskyard.inspection.broker_keys_to_search import MessageLocations
from taskyard.inspection.find_messages import Held, Messages
from taskyard.inspection.record_fields import Seen
from taskyard.inspection.search_budget import GRACE_S
from taskyard.inspection.unacked_message_owners import Holders, Return
from taskyard.jobs.states import State
from taskyard.records import Member, lives

__all__ = ["MessageState", "Place", "begun_by_dead", "describe", "look_at_message"]


class Place(StrEnum):
    """Where the message of a job is."""

    DEAD_WORKER = "dead worker"
    OTHER_WORKER = "other worker"
    QUEUE = "queue"
    DELAY_STORE = "delay store"
    NOT_FOUND = "not found"
    RABBITMQ = "rabbitmq"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class MessageState:
    """Where the message of a job is, whose worker is dead.

    `back` is set if a dead worker holds the message. `why` is why the place is unknown.
    """

    place: Place
    back: Return | None = None
    why: str = ""

    def sentence(self, queue: str, lease_until_us: int, now_us: int) -> str:
        """Return for a person where the message is, and what happens next."""
        runs = "runs the job" if lease_until_us < now_us else "runs the job after the lease"
        match self.place:
            case Place.DEAD_WORKER:
                said = "" if self.back is None else held_by(self.back)
            case Place.OTHER_WORKER:
                said = f"held by another worker, which {runs}"
            case Place.QUEUE:
                said = f"waits in queue {queue!r}; the worker that takes it {runs}"
            case Place.DELAY_STORE:
                said = (
                    f"waits in the delay store, from where a worker puts it into queue {queue!r} "
                    f"when it is due"
                )
            case Place.NOT_FOUND:
                said = _not_found(lease_until_us, now_us)
            case Place.RABBITMQ:
                said = f"RabbitMQ returns it to queue {queue!r}; the worker that takes it {runs}"
            case Place.UNKNOWN:
                said = f"unknown: {self.why}"
            case never:
                assert_never(never)
        return said


def held_by(back: Return) -> str:
    """Return which dead worker holds a message, and when the message comes back."""
    if back.at_us is None:
        return f"held by {back.holder}, which is dead; {back.how}"
    return (
        f"held by {back.holder}, which is dead; it comes back at about {_moment(back.at_us)}: "
        f"{back.how}"
    )


def _not_found(lease_until_us: int, now_us: int) -> str:
    stranded_us = lease_until_us + us_of(GRACE_S)
    if stranded_us < now_us:
        return (
            "not found: in no queue, in no delay store, held by no worker. See: taskyard reconcile"
        )
    return (
        f"not found: in no queue, in no delay store, held by no worker; if that is so after "
        f"{_moment(stranded_us)}, taskyard reconcile counts the job as stranded_running, and "
        f"--repair publishes the message again if there is a copy"
    )


def begun_by_dead(running: Iterable[Seen], members: Sequence[Member], now_us: int) -> list[Seen]:
    """Return those of the `running` jobs whose worker is dead, also while the lease is valid.

    Read `members` after the records: a worker that started between the two would seem dead.
    """
    return [
        seen
        for seen in running
        if seen.state is State.RUNNING
        and not lives(members, seen.texts["worker"], seen.numbers["started"], now_us)
    ]


def look_at_message(
    seen: Seen,
    messages: Messages,
    broker: redis.Redis,
    where: MessageLocations,
    holders: Holders,
) -> MessageState:
    """Return where the message of a job is, of which `messages` has all that were found."""
    key = messages.waits_at(seen)
    if key is not None:
        return MessageState(Place.DELAY_STORE if key == where.delayed else Place.QUEUE)
    returns = list(_returns(messages.holding(seen), seen, broker, holders))
    if None in returns:
        return MessageState(Place.OTHER_WORKER)
    dead = [one for one in returns if one is not None]
    if dead:
        first = min(dead, key=lambda one: one.at_us or float("inf"))
        return MessageState(Place.DEAD_WORKER, first)
    why = where.why_unseen(seen.texts["queue"])
    return MessageState(Place.NOT_FOUND) if why is None else MessageState(Place.UNKNOWN, why=why)


def _returns(
    holding: Iterable[Held], seen: Seen, broker: redis.Redis, holders: Holders
) -> Iterator[Return | None]:
    for held in holding:
        taken_s: Any = broker.zscore(held.index, held.tag)
        yield holders.look(held, seen, us_of(float(taken_s or 0)))


def describe(seen: Seen, message: MessageState, now_us: int) -> str:
    """Return for a person which worker began the job, its lease, and where its message is."""
    worker = seen.texts["worker"] or "without a name"
    until_us = seen.numbers["lease_until"]
    ends = "expired" if until_us < now_us else "expires"
    said = message.sentence(seen.texts["queue"], until_us, now_us)
    return (
        f"its worker {worker} is dead; its lease {ends} at {_moment(until_us)}; its message: {said}"
    )


def _moment(us: int) -> str:
    return f"{from_us(us):%Y-%m-%d %H:%M:%S} UTC"
