"""The TLS options of a URL: `ssl_ca_certs` and others, named as in Celery's own URLs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from taskyard.address.url import flag
from taskyard.errors import InvalidSettings

__all__ = ["TLS_PREFIX", "read_tls"]

TLS_PREFIX: Final = "ssl_"
_VERIFY: Final = ("required", "optional", "none")
_FLAGS: Final = ("ssl_check_hostname",)


def read_tls(options: Mapping[str, str], form: str) -> dict[str, Any]:
    """Return the `ssl_*` options of a URL, checked; `ssl_check_hostname` becomes a bool.

    `ssl_cert_reqs` is `required` (the default: the server's certificate is verified), `optional` or
    `none`; Celery's spellings such as CERT_REQUIRED are accepted. `form` names the URL in errors.
    Raises `InvalidSettings`.
    """
    found: dict[str, Any] = {k: v for k, v in options.items() if k.startswith(TLS_PREFIX)}
    asked = str(found.get("ssl_cert_reqs", "required"))
    verify = asked.lower().removeprefix("cert_")
    if verify not in _VERIFY:
        raise InvalidSettings(
            f"ssl_cert_reqs of {form}: expected {', '.join(_VERIFY)}, got {asked!r:.40}"
        )
    for name in _FLAGS:
        if name in found:
            try:
                found[name] = flag(found[name])
            except ValueError as error:
                raise InvalidSettings(
                    f"{name} of {form}: {error}, got {found[name]!r:.40}"
                ) from None
    return {**found, "ssl_cert_reqs": verify}
