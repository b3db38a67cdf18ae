"""Fetch pages over http and https only, with a size limit and a time limit.

The client reads no proxy, password or certificate setting from the machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter

from taskyard.errors import CodedError

__all__ = ["DEFAULT_TIMEOUT_S", "MAX_RESPONSE_BYTES", "BoundedSession", "fetch_html"]

MAX_RESPONSE_BYTES: Final = 5_000_000
"""Far above the size of any page that a person reads; the limit bounds a worker's memory."""
DEFAULT_TIMEOUT_S: Final = 10.0
_CHUNK_BYTES: Final = 65_536
_MAX_REDIRECTS: Final = 10
_NETWORK_FAILURES: Final = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


class _BoundedAdapter(HTTPAdapter):
    """An HTTP adapter that stops to read a body at a size limit or a time limit."""

    def __init__(self, timeout_s: float, max_bytes: int) -> None:
        self._timeout_s, self._max_bytes = timeout_s, max_bytes
        super().__init__()

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float | None, float | None] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send a request, read the whole body within the limits; network failures are coded."""
        ends_at_s = time.monotonic() + self._timeout_s
        url = str(request.url)
        try:
            response = super().send(
                request, stream=True, timeout=self._timeout_s, verify=verify, cert=cert
            )
            with response:
                body = b"".join(self._chunks(response, url, ends_at_s))
        except requests.exceptions.SSLError as error:
            message = f"{url} has no certificate that can be trusted ({_cause(error)})"
            raise CodedError("invalid_certificate", message, details={"url": url}) from error
        except _NETWORK_FAILURES as error:
            message = f"{url} did not answer within {self._timeout_s:g} s ({_cause(error)})"
            raise CodedError("network_timeout", message, details={"url": url}) from error
        response._content = body  # type: ignore[attr-defined,unused-ignore]
        response._content_consumed = True  # type: ignore[attr-defined,unused-ignore]
        return response

    def _chunks(self, response: requests.Response, url: str, ends_at_s: float) -> Iterator[bytes]:
        size = 0
        for chunk in response.iter_content(_CHUNK_BYTES):
            size += len(chunk)
            if size > self._max_bytes:
                message = f"{url} sent over {self._max_bytes} bytes; a page must be smaller"
                raise CodedError("response_too_large", message, details={"url": url})
            if time.monotonic() > ends_at_s:
                raise requests.Timeout(f"the body was still incomplete after {self._timeout_s:g} s")
            yield chunk


class BoundedSession(requests.Session):
    """A session that reads no proxy, password or certificate setting from the machine."""

    def __init__(
        self, timeout_s: float = DEFAULT_TIMEOUT_S, max_bytes: int = MAX_RESPONSE_BYTES
    ) -> None:
        super().__init__()
        self.trust_env = False
        self.max_redirects = _MAX_REDIRECTS
        self.adapters.clear()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _BoundedAdapter(timeout_s, max_bytes))

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override,unused-ignore]
        """Send a request as requests does; a fault of the page's address raises a coded error."""
        try:
            return super().request(method, url, **options)
        except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL) as error:
            message = f"expected an http or https URL, got {url[:200]!r}"
            raise CodedError("invalid_url", message) from error
        except requests.TooManyRedirects as error:
            raise CodedError("too_many_redirects", f"{url}: {error}") from error


def fetch_html(url: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> str:
    """Return the text of the page at `url`.

    Raises CodedError: `network_timeout`, `response_too_large`, `invalid_url`, or `page_unavailable`
    if the server answers without a page. A server that asks to try later gives `temporary_failure`.
    """
    with BoundedSession(timeout_s) as session:
        response = session.get(url)
    if response.status_code in (429, 502, 503, 504):
        message = f"{url} answered {response.status_code}: try later"
        raise CodedError("temporary_failure", message, details={"url": url})
    if not response.ok:
        message = f"{url} answered {response.status_code}; expected a page"
        raise CodedError("page_unavailable", message, details={"url": url})
    if "charset" not in response.headers.get("Content-Type", ""):
        response.encoding = response.apparent_encoding
    return response.text


def _cause(error: Exception) -> str:
    reason = getattr(error.args[0], "reason", error) if error.args else error
    return type(reason).__name__
