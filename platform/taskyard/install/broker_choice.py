"""By which broker retries, waiting messages and letters of an installed app go."""

from __future__ import annotations

from taskyard.address import server_at
from taskyard.broker.connection import check_broker_url
from taskyard.install.app_broker import AppBroker
from taskyard.settings import Settings

__all__ = ["app_settings", "goes_by_own", "strays_to", "why_unsupported"]

_SUPPORTED = ("redis", "amqp")


def goes_by_own(broker: AppBroker) -> bool:
    """Whether all of it goes by the app's own address; otherwise by TASKYARD_BROKER_URL."""
    return broker.kind in _SUPPORTED and broker.is_one


def why_unsupported(broker: AppBroker, settings: Settings) -> str | None:
    """What speaks against protecting tasks at the app's broker.

    Of several Redis servers TASKYARD_BROKER_URL may name the one that serves.
    """
    if goes_by_own(broker) or _is_named(broker, settings):
        return None
    if broker.kind in _SUPPORTED:
        return (
            "the broker is one of several Redis servers, and what waits at one of them is at no "
            "other: set TASKYARD_BROKER_URL to the one that serves, or reach them by Sentinel"
        )
    return "the broker is neither one Redis nor RabbitMQ: nothing could wait there"


def strays_to(broker: AppBroker, settings: Settings) -> str | None:
    """The app's broker, without credentials, where TASKYARD_BROKER_URL names another one.

    Letters are at the app's broker, and mirror and relay would look at the other. None where both
    are one, as far as names show, where the variable is not set, and where none of it is supported.
    """
    if why_unsupported(broker, settings) is not None or settings.broker_url is None:
        return None
    if broker.server is None or _is_named(broker, settings):
        return None
    return broker.server.url()


def app_settings(broker: AppBroker, settings: Settings) -> Settings:
    """`settings` as the app's processes use them; the app's queues keep their names.

    `broker_url` is where retries, waiting messages and letters go. Of the app's own broker it says
    kind and place only: `AppBroker.connect` knows the rest. Where that broker is of another kind,
    letters go to TASKYARD_BROKER_URL or to the records' Redis.
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
