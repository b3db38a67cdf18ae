"""Choose the broker for retries, delayed messages and dead letters of an installed app."""

from __future__ import annotations

from taskyard.address import server_at
from taskyard.broker.connection import check_broker_url
from taskyard.install.app_broker import AppBroker
from taskyard.settings import Settings

__all__ = ["app_settings", "goes_by_own", "strays_to", "why_unsupported"]

_SUPPORTED = ("redis", "amqp")


def goes_by_own(broker: AppBroker) -> bool:
    """Return whether Taskyard uses the app's own broker address for all messages.

    Otherwise it uses TASKYARD_BROKER_URL.
    """
    return broker.kind in _SUPPORTED and broker.is_one


def why_unsupported(broker: AppBroker, settings: Settings) -> str | None:
    """Return why tasks cannot be protected at the app's broker; None if they can.

    With several Redis servers TASKYARD_BROKER_URL may name the one in use.
    """
    if goes_by_own(broker) or _is_named(broker, settings):
        return None
    if broker.kind in _SUPPORTED:
        return (
            "the broker is one of several Redis servers, and a message at one of them is not at "
            "the others: set TASKYARD_BROKER_URL to the one in use, or use Sentinel"
        )
    return "the broker is neither one Redis nor RabbitMQ: it cannot hold delayed messages"


def strays_to(broker: AppBroker, settings: Settings) -> str | None:
    """Return the name of the app's broker if TASKYARD_BROKER_URL names another broker.

    The name has no credentials. Dead letters are at the app's broker, and mirror and relay
    would read the other one. None if both names are the same, if the variable is not set, or if
    neither broker is supported.
    """
    if why_unsupported(broker, settings) is not None or settings.broker_url is None:
        return None
    if broker.server is None or _is_named(broker, settings):
        return None
    return broker.server.url()


def app_settings(broker: AppBroker, settings: Settings) -> Settings:
    """Return `settings` for the app's processes; the app's queues keep their names.

    `broker_url` is the broker for retries, delayed messages and dead letters. For the app's own
    broker it has only kind and location, and `AppBroker.connect` knows the rest. If that broker
    is of another kind, dead letters go to TASKYARD_BROKER_URL or to the records' Redis.
    """
    if goes_by_own(broker) and broker.server is not None:
        url = broker.server.url()
    else:
        url = settings.broker_url or settings.need_redis_url()
    return settings.model_copy(update={"broker_url": url, "queues": {}})


def _is_named(broker: AppBroker, settings: Settings) -> bool:
    if broker.server is None or settings.broker_url is None:
        return False
    return broker.server.is_same(server_at(check_broker_url(settings)))
