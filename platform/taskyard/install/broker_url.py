"""The app's own broker, in the words of our settings."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote, urlsplit

from taskyard.settings import Settings
from taskyard.wire import redact_url

__all__ = ["app_settings", "broker_url", "own_url", "strays_to", "why_unsupported"]

_SUPPORTED: Final = ("redis", "amqp")
_TLS: Final = ("rediss", "amqps")
_PORTS: Final = {"redis": 6379, "amqp": 5672}
_PORTS_TLS: Final = {"redis": 6379, "amqp": 5671}
_DEFAULTS: Final = {"redis": "0", "amqp": "/"}


def broker_url(app: Any) -> str:
    """The URL that the app publishes to, password included; nothing is connected."""
    with app.connection_for_write() as connection:
        uri = str(connection.as_uri(include_password=True))
    kind, _, rest = uri.partition("://")
    if ":" in kind:
        # A transport named by its class stands in the scheme's place; the app wrote the scheme.
        kind = urlsplit(str(app.conf.broker_write_url or app.conf.broker_url)).scheme
    return f"{kind}://{rest}"


def own_url(app: Any, settings: Settings) -> str | None:
    """The one URL by which retries, waiting messages and letters reach the app's broker.

    Where its own URL is not all that it takes, that is TASKYARD_BROKER_URL, by which mirror and
    relay reach the same broker: of the same kind, on one of its hosts. None where there is none.
    """
    url, given = broker_url(app), settings.broker_url or ""
    if _kind(url) not in _SUPPORTED:
        return None
    if not _takes_more(app):
        return url
    same = _kind(given) == _kind(url) and urlsplit(given).hostname in _hosts(app)
    return given if same else None


def why_unsupported(app: Any, settings: Settings) -> str | None:
    """What speaks against protecting tasks at the app's broker."""
    if own_url(app, settings) is not None:
        return None
    if _kind(broker_url(app)) in _SUPPORTED:
        return (
            "the broker is reached by broker_use_ssl or by one of several URLs, which retries and "
            "letters cannot follow: set TASKYARD_BROKER_URL to one URL that reaches it, with what "
            "TLS needs (rediss://host?ssl_ca_certs=/path, amqps://host)"
        )
    return "the broker is neither one Redis nor RabbitMQ: nothing could wait there"


def strays_to(app: Any, settings: Settings) -> str | None:
    """The app's broker, without its password, where TASKYARD_BROKER_URL names another one.

    Letters lie at the app's broker, and mirror and relay would look at the other. None where both
    are one, as far as names tell, where the variable is not set, and where none of it is supported.
    """
    own, given = own_url(app, settings), settings.broker_url
    if own is None or given is None or _place(own) == _place(given):
        return None
    return redact_url(own)


def _place(url: str) -> tuple[str, str, int, str]:
    """What makes two URLs the same place: kind, host, port, database or virtual host."""
    parts, kind = urlsplit(url), _kind(url)
    host = (parts.hostname or "localhost").lower()
    port = parts.port or (_PORTS_TLS if parts.scheme in _TLS else _PORTS).get(kind, 0)
    part = unquote(parts.path.removeprefix("/")) or _DEFAULTS.get(kind, "")
    return kind, "127.0.0.1" if host == "localhost" else host, port, part


def app_settings(app: Any, settings: Settings) -> Settings:
    """`settings` as the app's processes use them.

    Retries and waiting messages go through the app's own broker, and so do letters; where that
    broker is of another kind, letters go to the records' Redis. The app's queues keep their names.
    """
    url = own_url(app, settings) or settings.broker_url or settings.need_redis_url()
    return settings.model_copy(update={"broker_url": url, "queues": {}})


def _takes_more(app: Any) -> bool:
    """Whether one URL does not say how the app's broker is reached."""
    return len(_urls(app)) > 1 or bool(app.conf.broker_use_ssl)


def _urls(app: Any) -> list[str]:
    urls = app.conf.broker_write_url or app.conf.broker_url or ""
    return urls.split(";") if isinstance(urls, str) else list(urls)


def _hosts(app: Any) -> set[str | None]:
    return {urlsplit(url).hostname for url in _urls(app)}


def _kind(url: str) -> str:
    """Redis or RabbitMQ, with TLS or without; otherwise the scheme itself."""
    scheme = urlsplit(url).scheme
    return {"rediss": "redis", "amqps": "amqp", "pyamqp": "amqp"}.get(scheme, scheme)
