"""The app's own broker, in the words of our settings."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from taskyard.settings import Settings

__all__ = ["SUPPORTED", "app_settings", "broker_url"]

SUPPORTED: Final = ("redis", "rediss", "amqp", "amqps", "pyamqp")


def broker_url(app: Any) -> str:
    """The URL that the app publishes to, password included; nothing is connected."""
    with app.connection_for_write() as connection:
        uri = str(connection.as_uri(include_password=True))
    kind, _, rest = uri.partition("://")
    if ":" in kind:
        # A transport named by its class stands in the scheme's place; the app wrote the scheme.
        kind = urlsplit(str(app.conf.broker_write_url or app.conf.broker_url)).scheme
    return f"{kind}://{rest}"


def app_settings(app: Any, settings: Settings) -> Settings:
    """`settings` as the app's processes use them.

    Retries and waiting messages go through the app's own broker, and so do letters; where that
    broker is of another kind, letters go to the records' Redis. The app's queues keep their names.
    """
    url = broker_url(app)
    if urlsplit(url).scheme not in SUPPORTED:
        url = settings.broker_url or settings.need_redis_url()
    return settings.model_copy(update={"broker_url": url, "queues": {}})
