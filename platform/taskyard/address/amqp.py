"""RabbitMQ's address in one URL, or in one URL for each host of a cluster, separated by ;."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from taskyard.address.tls import TLS_PREFIX, read_tls
from taskyard.address.url import Url, read_url
from taskyard.errors import InvalidSettings

__all__ = ["AMQP_SCHEMES", "AmqpAddress", "amqp_address"]

AMQP_SCHEMES: Final = ("amqp", "amqps", "pyamqp")
_FORM: Final = "amqp://host:port/virtual-host (amqps:// with TLS)"
_PORT: Final = 5672
_TLS_PORT: Final = 5671
# kombu reads these options itself.
_OPTIONS: Final = ("heartbeat", "connect_timeout", "login_method")
# RabbitMQ's own names for the same, see https://www.rabbitmq.com/docs/uri-query-parameters.
_SYNONYMS: Final = {
    "cacertfile": "ssl_ca_certs",
    "certfile": "ssl_certfile",
    "keyfile": "ssl_keyfile",
    "verify": "ssl_cert_reqs",
    "server_name_indication": "ssl_server_hostname",
}
_VERIFY: Final = {"verify_peer": "required", "verify_none": "none"}
_TLS: Final = frozenset(
    {
        "ssl_cert_reqs",
        "ssl_ca_certs",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_check_hostname",
        "ssl_server_hostname",
        "ssl_ciphers",
    }
)
_REQUIREMENTS: Final = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}


@dataclass(frozen=True, slots=True)
class AmqpAddress:
    """The address of one broker, or of one cluster of brokers.

    `urls` are kombu's URLs in the order to try, without the options in `tls`. `tls` are py-amqp's
    options, None without TLS; a `server_hostname` of None in them means the host of the URL in use.
    """

    urls: tuple[str, ...]
    hosts: tuple[tuple[str, int], ...]
    virtual_host: str
    tls: Mapping[str, Any] | None = None


def amqp_address(url: str) -> AmqpAddress:
    """Parse one URL, or several of one cluster; raises `InvalidSettings`."""
    parts = [read_url(text, _FORM) for text in url.split(";")]
    for part in parts:
        _check(part)
    first = parts[0]
    if any((p.scheme, p.path) != (first.scheme, first.path) for p in parts):
        raise InvalidSettings(
            "expected URLs of one cluster, got URLs with different schemes or virtual hosts"
        )
    secure = first.scheme == "amqps"
    default = _TLS_PORT if secure else _PORT
    return AmqpAddress(
        urls=tuple(_without_tls(text) for text in url.split(";")),
        hosts=tuple(
            (host or "localhost", port or default) for p in parts for host, port in p.hosts
        ),
        virtual_host=first.path or "/",
        tls=_common_tls(parts) if secure else None,
    )


def _common_tls(parts: list[Url]) -> dict[str, Any]:
    """Return the TLS options of a cluster; it is enough if one of its URLs has these options."""
    said = [part for part in parts if any(_is_tls(name) for name in part.options)] or parts[:1]
    found = [_tls(part) for part in said]
    if any(tls != found[0] for tls in found):
        raise InvalidSettings("expected the same TLS options in the URLs of one cluster")
    return found[0]


def _check(part: Url) -> None:
    if part.scheme not in AMQP_SCHEMES:
        raise InvalidSettings(
            f"expected {'://, '.join(AMQP_SCHEMES)}://, got {part.scheme or 'no scheme'}://"
        )
    if len(part.hosts) > 1:
        raise InvalidSettings(
            f"expected one host in each URL, {_FORM}, with ; between the URLs of a cluster, got "
            f"{len(part.hosts)} hosts in one"
        )
    known = {*_OPTIONS, *_SYNONYMS, *_TLS}
    unknown = sorted(part.options.keys() - known)
    if unknown:
        raise InvalidSettings(
            f"a URL of {part.scheme}:// has no option {unknown[0]!r}; known: "
            f"{', '.join(sorted(known))}"
        )
    secret = sorted(name for name in part.options if _is_tls(name))
    if secret and part.scheme != "amqps":
        raise InvalidSettings(
            f"{secret[0]} asks for TLS, which {part.scheme}:// does not use. Write amqps://, or "
            f"remove the option"
        )


def _tls(part: Url) -> dict[str, Any]:
    """Return py-amqp's options; by default certificate and host name are verified."""
    named = {_SYNONYMS.get(k, k): v for k, v in part.options.items() if _is_tls(k)}
    asked = named.get("ssl_cert_reqs")
    if asked in _VERIFY:
        named["ssl_cert_reqs"] = _VERIFY[asked]
    options = read_tls(named, _FORM)
    found: dict[str, Any] = {"cert_reqs": _REQUIREMENTS[options.pop("ssl_cert_reqs")]}
    checked = options.pop("ssl_check_hostname", found["cert_reqs"] is not ssl.CERT_NONE)
    server = options.pop("ssl_server_hostname", None)
    if checked and server != "disable":
        found["server_hostname"] = server
    return found | {name.removeprefix(TLS_PREFIX): value for name, value in options.items()}


def _is_tls(name: str) -> bool:
    return name in _TLS or name in _SYNONYMS


def _without_tls(url: str) -> str:
    place, _, query = url.partition("?")
    kept = [(name, value) for name, value in parse_qsl(query) if not _is_tls(name)]
    return f"{place}?{urlencode(kept)}" if kept else place
