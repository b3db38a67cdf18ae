"""The base class and field types of every payload and result model in this package."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict

__all__ = ["MAX_HTML_CHARS", "HttpUrl", "Model"]

MAX_HTML_CHARS: Final = 4_000_000
"""Longest page inside a payload; for a larger page the payload has the URL."""


class Model(BaseModel):
    """A frozen model without extra keys: an unknown key is an error, so that a typo is found."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _http_only(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected an http or https URL with a host, got {url[:200]!r}")
    return url


HttpUrl = Annotated[str, AfterValidator(_http_only)]
"""A string that is an http or https URL with a host; kept as written."""
