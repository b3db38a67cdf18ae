"""The work queues at the broker: how many messages wait, and how many workers consume them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from taskyard.broker import connection, is_amqp, make_app, own_layout
from taskyard.broker.connection import check_broker_url
from taskyard.deadletters import LetterPrefixes, mirror_queue
from taskyard.errors import ServerUnreachable
from taskyard.jobs import Catalogue
from taskyard.queues import inquire
from taskyard.settings import Settings
from taskyard.store import BROKER, connect, reachable
from taskyard.transport import read_owners
from taskyard.wire import redact_url

__all__ = [
    "QueueState",
    "ask_workers",
    "away",
    "declared",
    "heartbeats",
    "length",
    "letters_waiting",
    "look",
]

_NOT_FOUND: Final = 404
# Workers whose heartbeat names no queues are asked directly; a busy one answers late.
_ANSWER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue; a number that the broker did not give is None, which is not the same as 0.

    `app` marks a queue of an installed Celery app, whose workers announce every minute which queues
    they consume, last at `told_at`.
    """

    queue: str
    waiting: int | None
    consumers: int | None
    app: bool = False
    told_at: datetime | None = None

    @property
    def unserved(self) -> bool:
        """Return whether it is certain that no worker consumes the queue."""
        return self.consumers == 0


def look(settings: Settings, names: Iterable[str] | None = None) -> list[QueueState]:
    """Return the state of the queues called `names`, of all configured ones if None.

    Raises `ServerUnreachable`.
    """
    wanted = list(settings.queues if names is None else names)
    at_broker = {name: _broker_name(settings, name) for name in wanted}
    seen = _rabbitmq if is_amqp(settings) else _redis
    waiting, consumers = seen(settings, list(at_broker.values()))
    return [
        QueueState(name, waiting[theirs], consumers[theirs]) for name, theirs in at_broker.items()
    ]


def letters_waiting(settings: Settings) -> int | None:
    """Return how many letters wait for the mirror, including those of apps with a prefix.

    None if one of their queues may not be read. Raises `ServerUnreachable`, `InvalidSettings`,
    `MissingSetting`.
    """
    name = mirror_queue(settings).name
    if is_amqp(settings):
        return _rabbitmq(settings, [name])[0][name]
    records = settings.need_redis_url()
    with connect(records, retries=0) as client, reachable(records):
        prefixes = {own_layout(settings).prefix, *LetterPrefixes(client, settings.namespace).all()}
    url = check_broker_url(settings)
    with connect(url, retries=0, variable=BROKER) as client, reachable(url, variable=BROKER):
        return length(client, [prefix + name for prefix in sorted(prefixes)])


Counts = Mapping[str, int | None]


def _broker_name(settings: Settings, name: str) -> str:
    """Return the queue's name at the broker; a queue without settings keeps its own name."""
    return settings.broker_name(name) if name in settings.queues else name


def _redis(settings: Settings, names: Sequence[str]) -> tuple[Counts, Counts]:
    url, layout = check_broker_url(settings), own_layout(settings)
    with connect(url, retries=0, variable=BROKER) as client, reachable(url, variable=BROKER):
        waiting: Counts = {name: length(client, layout.keys(name)) for name in names}
        counts = heartbeats(client, settings.namespace)
    if all(counts[name] for name in names):
        return waiting, counts
    with reachable(url, variable=BROKER):
        answers, complete = _answers(settings)
    # A worker with a heartbeat answers too, so the two numbers overlap and are not added.
    seen = {name: max(counts[name], answers[name]) for name in names}
    return waiting, {name: n if n > 0 or complete else None for name, n in seen.items()}


def length(client: Redis, keys: Iterable[str]) -> int | None:
    """Return how many messages a queue's lists hold, None if one of them could not be read."""
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.llen(key)
        found: list[Any] = pipe.execute(raise_on_error=False)
    if any(isinstance(size, RedisError) and not _no_list(size) for size in found):
        return None
    return sum(size for size in found if isinstance(size, int))


def _no_list(error: RedisError) -> bool:
    """Return whether the key has another type, so it holds no message; raise other refusals."""
    return str(error).startswith("WRONGTYPE")


def heartbeats(client: Redis, namespace: str, prefix: str = "") -> Counter[str]:
    """Count the live consumers of each queue; `prefix` is an installed app's own."""
    now_us, owners = read_owners(client, f"{prefix}{namespace}:heartbeats")
    return Counter(name for owner in owners if owner.alive(now_us) for name in owner.queues)


def _answers(settings: Settings) -> tuple[Counter[str], bool]:
    """Return the workers' answers, Celery's own workers included, and whether all have answered."""
    answers, listening = ask_workers(settings, "active_queues")
    counts = Counter(queue["name"] for queues in answers.values() for queue in queues)
    return counts, listening is not None and len(answers) >= listening


def ask_workers(settings: Settings, question: str) -> tuple[Mapping[str, Any], int | None]:
    """Return the answer of each worker within a second, and how many received the question.

    The number is None on RabbitMQ, which does not say. Raises `ServerUnreachable`.
    """
    app: Celery = make_app(settings, Catalogue.of(settings))
    try:
        answers = getattr(app.control.inspect(timeout=_ANSWER_S), question)() or {}
        listening = None if is_amqp(settings) else _listening(app)
    except OperationalError as error:
        raise away(settings, error) from error
    finally:
        app.close()
    return answers, listening


def _listening(app: Celery) -> int:
    """Count the workers that receive a broadcast: Redis returns the number, kombu drops it.

    Every worker ignores an empty message.
    """
    with app.connection_for_write() as broker:
        channel = broker.default_channel
        topic = channel._get_publish_topic(app.control.mailbox.exchange.name, "")
        return int(channel.client.publish(topic, ""))


def _rabbitmq(settings: Settings, names: Sequence[str]) -> tuple[Counts, Counts]:
    waiting: dict[str, int | None] = {}
    consumers: dict[str, int | None] = {}
    with connection(settings) as broker:
        try:
            broker.connect()
            for name in names:
                waiting[name], consumers[name] = declared(broker, name)
        except broker.connection_errors as error:
            raise away(settings, error) from error
    return waiting, consumers


def declared(broker: Any, name: str) -> tuple[int | None, int | None]:
    """Return the numbers of waiting messages and of consumers; None if the server hides them."""
    try:
        answer = inquire(broker, name)
    except broker.channel_errors as error:
        return (0, 0) if error.code == _NOT_FOUND else (None, None)
    return answer.message_count, answer.consumer_count


def away(settings: Settings, error: object) -> ServerUnreachable:
    """Return the error for a broker that did not answer."""
    return ServerUnreachable(
        "the broker",
        redact_url(settings.need_broker_url()),
        error,
        "Start it, or correct TASKYARD_BROKER_URL; `taskyard check` shows when it answers.",
    )
