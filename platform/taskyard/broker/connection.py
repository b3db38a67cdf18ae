"""The kombu connection to the broker and its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from kombu import Connection

from taskyard.broker.any_header import read_any_header
from taskyard.errors import InvalidSettings
from taskyard.queues import URGENCY_STEPS
from taskyard.settings import Settings
from taskyard.store import SCHEMES, sentinel_address
from taskyard.transport import BURST

__all__ = ["Wiring", "check_broker_url", "connection", "same_redis", "transport_options", "wiring"]


@dataclass(frozen=True, slots=True)
class Wiring:
    """A Redis in kombu's and Celery's own words."""

    url: str
    transport: str | None
    backend: str
    options: dict[str, Any]


AMQP_SCHEMES = ("amqp", "amqps", "pyamqp")


def transport_options(settings: Settings) -> dict[str, Any]:
    """Options of kombu's transport: short timeouts, confirmation, our priorities and namespace."""
    if is_amqp(settings):
        timeout = settings.publish_timeout_s
        return {"confirm_publish": True, "connect_timeout": timeout, "write_timeout": timeout}
    prefix = "" if settings.namespace == "taskyard" else f"{settings.namespace}:"
    return {
        "visibility_timeout": settings.visibility_timeout_s,
        "unacked_restore_throttle": 1,
        "priority_steps": list(URGENCY_STEPS),
        "queue_order_strategy": "priority",
        "burst": BURST,
        "unacked_key": f"{prefix}unacked",
        "unacked_index_key": f"{prefix}unacked_index",
        "unacked_mutex_key": f"{prefix}unacked_mutex",
        "unacked_restore_interval": 1,
        "owner_prefix": f"{settings.namespace}:owner:",
        "owners_key": f"{settings.namespace}:owners",
        "socket_timeout": settings.publish_timeout_s,
        "socket_connect_timeout": settings.publish_timeout_s,
        "socket_keepalive": True,
        "health_check_interval": 30,
    }


def check_broker_url(settings: Settings) -> str:
    """The broker's URL if its scheme is one that this version speaks; raises `InvalidSettings`."""
    url = settings.need_broker_url()
    scheme = urlsplit(url).scheme
    if scheme not in SCHEMES + AMQP_SCHEMES:
        raise InvalidSettings(
            f"TASKYARD_BROKER_URL: expected {'://, '.join(SCHEMES + AMQP_SCHEMES)}://, "
            f"got {scheme}://"
        )
    return url


def is_amqp(settings: Settings) -> bool:
    """Whether the broker is RabbitMQ; raises `InvalidSettings` for an unknown scheme."""
    return urlsplit(check_broker_url(settings)).scheme in AMQP_SCHEMES


def wiring(url: str) -> Wiring:
    """How kombu and Celery are told of the Redis at `url`; raises `InvalidSettings`."""
    if urlsplit(url).scheme in AMQP_SCHEMES:
        return Wiring(url, None, "", {})
    address = sentinel_address(url)
    if address is None:
        return Wiring(url, "taskyard.transport:Transport", "taskyard.backend:RecordBackend", {})
    user = (
        f"{quote(address.username or '', safe='')}:{quote(address.password, safe='')}@"
        if (address.password)
        else ""
    )
    nodes = [f"sentinel://{user}{host}:{port}/{address.database}" for host, port in address.hosts]
    return Wiring(
        ";".join(nodes),
        "taskyard.transport:SentinelTransport",
        "taskyard.backend:SentinelRecordBackend",
        {"master_name": address.primary},
    )


def same_redis(settings: Settings) -> bool:
    """Whether records and broker share one Redis, so that one script can serve both."""
    return not is_amqp(settings) and settings.need_broker_url() == settings.need_redis_url()


def connection(settings: Settings) -> Connection:
    """A connection to the broker; nothing is sent yet. Raises `InvalidSettings`."""
    wires = wiring(check_broker_url(settings))
    options = {**transport_options(settings), **wires.options}
    made = Connection(wires.url, transport=wires.transport, transport_options=options)
    read_any_header(made)
    return made
