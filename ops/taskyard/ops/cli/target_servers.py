"""The servers that a command works with: from the settings, or those that `taskyard up` runs here.

Only operator commands look for the servers of `taskyard up`. A client, `celery -A` and `install`
never do: their settings must name servers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from taskyard.address import AMQP_SCHEMES, REDIS_SCHEMES, server_at
from taskyard.errors import InvalidSettings, ServerUnreachable
from taskyard.ops.cli.console import note
from taskyard.settings import Settings, load

__all__ = ["CREDENTIALS", "EMBEDDED_ORIGIN", "URLS", "Target", "find_target"]

URLS: Final = ("broker_url", "redis_url", "database_url")
_EXAMPLES: Final = {
    "broker_url": "redis://host:6379/0 or amqp://host:5672//",
    "redis_url": "redis://host:6379/0",
    "database_url": "postgresql://host:5432/name",
}
# An operator's: the jobs of a worker can read its environment, so it inherits neither.
CREDENTIALS: Final = ("TASKYARD_TOKEN", "TASKYARD_SIGNING_KEY")
EMBEDDED_ORIGIN: Final = "taskyard up"


@dataclass(frozen=True, slots=True)
class Target:
    """Settings with their origins; `environ` is what another process needs to use the same servers.

    `embedded` is the home whose servers are used, None if the settings name servers.
    """

    settings: Settings
    origins: Mapping[str, str]
    environ: Mapping[str, str]
    embedded: Path | None = None


def find_target(*, quiet: bool) -> Target:
    """Return the servers to work with; unless `quiet`, name embedded ones on stderr.

    Raises `InvalidSettings`.
    """
    loaded = load()
    settings = loaded.settings
    _check_urls(settings)
    if any(getattr(settings, name) is not None for name in URLS):
        return Target(settings, loaded.origins, {})
    urls = _embedded(settings.home)
    if urls is None:
        return Target(settings, loaded.origins, {})
    found = load({**os.environ, **urls})
    origins = {**found.origins, **dict.fromkeys(URLS, EMBEDDED_ORIGIN)}
    origins["home"] = loaded.origins["home"]
    if not quiet:
        note(f"using the servers that `taskyard up` runs in {settings.home}")
    return Target(found.settings, origins, urls, settings.home)


def _check_urls(settings: Settings) -> None:
    """Raise `InvalidSettings` for a URL that cannot be read, with one text for all libraries.

    An unknown scheme is reported by the code that needs the server.
    """
    for name in URLS:
        url = getattr(settings, name)
        try:
            scheme = urlsplit(url or "").scheme
            if scheme in REDIS_SCHEMES + AMQP_SCHEMES:
                server_at(url)
            else:
                _check_port(url or "")
        except (ValueError, InvalidSettings) as error:
            said = "the host is not UTF-8" if isinstance(error, UnicodeError) else str(error)
            raise InvalidSettings(
                f"TASKYARD_{name.upper()} cannot be read: {said}. Expected a URL such as "
                f"{_EXAMPLES[name]}"
            ) from None


def _check_port(url: str) -> None:
    """Raise ValueError for an invalid port; with several hosts the library reads it."""
    parts = urlsplit(url)
    if "," not in parts.netloc:
        _ = parts.port, parts.netloc.encode("utf-8")


def _embedded(home: Path) -> Mapping[str, str] | None:
    """Return the URLs of the stack that runs in `home`, if there is one."""
    if not home.expanduser().is_dir():
        return None
    from taskyard.ops.embedded import (  # noqa: PLC0415 - most commands get URLs from settings
        StackNotRunning,
        environment_of,
    )

    try:
        return environment_of(home)
    except (StackNotRunning, ServerUnreachable):
        return None
