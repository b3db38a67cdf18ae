"""Close a consumer's broken connection, and decide when it reconnects."""

from __future__ import annotations

from typing import Any, Final

from amqp.exceptions import AccessRefused
from kombu import pools
from redis.exceptions import ResponseError

from taskyard.store import is_of_replica
from taskyard.wire.failure_backoff import FailureBackoff
from taskyard.wire.redacted_logs import logger

__all__ = [
    "CALM_S",
    "LONGEST_S",
    "Reconnecting",
    "close_in_two_steps",
    "silence_events_while_blocked",
    "unconfirm_remote_control",
]

log = logger(__name__)

_FIRST_S: Final = 0.1
LONGEST_S: Final = 2.0
# A connection that lasted this long was stable.
CALM_S: Final = 10.0
_REFUSED: Final = "the broker refuses a command that this worker needs to take messages"


def unconfirm_remote_control(app: Any, connection: Any) -> None:
    """Make remote control of this process wait for no confirmation; `connection` is a consumer's.

    A starting worker asks the others for their state (mingle). If the app confirms its
    publications, it would wait for that confirmation without a time limit, and would not
    consume the queues whose messages may be what fills the broker. Remote control is for
    people, like task events, and is sent unconfirmed.
    """
    options = connection.transport_options or {}
    if connection.transport.driver_type == "amqp" and options.get("confirm_publish"):
        own = app.connection_for_write()
        own.transport_options = {**(own.transport_options or {}), "confirm_publish": False}
        # Forked children drop it.
        app.control.mailbox.producer_pool = pools.producers[own]


def silence_events_while_blocked(connection: Any, consumer: Any) -> None:
    """Send Celery's task events without confirmation, and none while RabbitMQ blocks publishers.

    `consumer` is Celery's. RabbitMQ stops reading from publishers while it lacks memory or disk
    space. Task events are for people. If the consumer waited for their confirmation, it would
    stop taking messages, and only that makes room in RabbitMQ.
    """
    if connection.transport.driver_type != "amqp":
        return

    def on_blocked(_: str) -> None:
        log.warning(
            "RabbitMQ blocks publishers, because memory or disk space is low: this worker "
            "sends no task events until RabbitMQ accepts publications again. Jobs run; their "
            "retries and dead letters wait",
            extra={"action": "broker_blocked"},
        )
        _enable_events(consumer, enabled=False)

    def on_unblocked() -> None:
        log.warning(
            "RabbitMQ accepts publications again, so this worker sends task events, retries and "
            "dead letters again",
            extra={"action": "broker_unblocked"},
        )
        _enable_events(consumer, enabled=True)

    connection.transport_options = {
        **(connection.transport_options or {}),
        "confirm_publish": False,
        "on_blocked": on_blocked,
        "on_unblocked": on_unblocked,
    }


def _enable_events(consumer: Any, *, enabled: bool) -> None:
    if consumer.event_dispatcher is not None:
        consumer.event_dispatcher.enabled = enabled


class Reconnecting:
    """Computes waits before a new connection: none after the first loss, then 0.1 s to 2 s.

    Each wait is twice as long as the one before. A server that became read-only accepts every
    connection: without a wait the worker would connect and be refused dozens of times a second.
    A fault that a new connection cannot correct, such as a missing permission, has the longer
    waits of `backoff`.
    """

    def __init__(self, backoff: FailureBackoff) -> None:
        self._backoff = backoff
        self._lost_at_s = float("-inf")
        self._wait_s = 0.0
        self.losses = 0

    def note_calm(self, losses: int) -> None:
        """Note that the connection is stable, if it was not lost since it was made.

        The consumer calls this some time after it has connected.
        """
        if losses == self.losses:
            self._backoff.succeeded(_REFUSED)

    def wait_s(self, now_s: float, error: BaseException) -> float:
        """Return how long to wait after a connection was lost at `now_s` (monotonic seconds)."""
        self.losses += 1
        calm = now_s - self._lost_at_s > CALM_S
        self._lost_at_s = now_s
        if isinstance(error, ResponseError | AccessRefused) and not is_of_replica(error):
            return self._backoff.failed(_REFUSED, error, action="broker_refuses")
        self._wait_s = 0.0 if calm else min(max(2 * self._wait_s, _FIRST_S), LONGEST_S)
        if self._wait_s:
            log.warning(
                "the connection to the broker was lost again; this worker reconnects in %.1f s: %s",
                self._wait_s,
                error,
                extra={"action": "reconnect_waits", "wait_s": self._wait_s},
            )
        return self._wait_s


def close_in_two_steps(connection: Any) -> None:
    """Make `connection` close a channel again if the first try closed only a part of it.

    kombu's own Redis channel waits for the answer of its last pop before it closes. If that
    does not come, kombu ignores the error and drops the server's address; the next close then
    raises an AttributeError, which ends the worker. The second try has no pop to wait for.
    """
    close = connection.maybe_close_channel

    def close_whole(channel: Any) -> None:
        close(channel)
        if not getattr(channel, "closed", True):
            close(channel)

    connection.maybe_close_channel = close_whole
