"""Texts that were written to hurt cost redaction no more than their length."""

from __future__ import annotations

import pytest

from taskyard.clock import SYSTEM_CLOCK
from taskyard.wire.redaction import MASK, redact_text

pytestmark = pytest.mark.slow

LONG = 100_000
# What an expression that enters a run again and again, or gives it back, needs minutes for.
HOSTILE = [
    "a-",
    "a.",
    "token-",
    "token",
    "password",
    "password=",
    'password="',
    "password='\\",
    "authorization: ",
    "authorization=token",
    "bearer ",
    "cookie",
    "cookie: ",
    "pass",
    "pass-",
    "private_",
    "x://",
    "x://a:",
    "x://a:b@",
    "://",
    "@",
    " ",
    "\\",
    '"',
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("before", [":", "password=", 'password="', "authorization: ", "x://a:"])
@pytest.mark.parametrize("after", ["", '"', "@", "\x00"])
def test_a_hostile_text_is_redacted_in_time(piece: str, before: str, after: str) -> None:
    text = f"{before}{piece * (LONG // len(piece))}{after}"
    started_s = SYSTEM_CLOCK.monotonic_s()
    redact_text(text)
    assert SYSTEM_CLOCK.monotonic_s() - started_s < 5


@pytest.mark.parametrize(
    "text",
    [
        'cannot log in with password="hunter2',
        "cannot log in with password='hunter2",
        '{"dsn": {"password": "hunter2',
        "--db-password=hunter2",
        "cannot reach redis://user:hunter2@host,redis://user:hunter2@other",
        "authorization: Basic   hunter2",
        "Cookie: sessionid=hunter2; csrf",
    ],
)
def test_a_secret_is_masked_although_the_text_was_cut_behind_it(text: str) -> None:
    shown = redact_text(text)
    assert "hunter2" not in shown
    assert MASK in shown
