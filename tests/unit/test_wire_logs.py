"""Log lines: a secret never reaches a handler, and everything else does as it was."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard.wire.redacted_logs import logger, redact_handlers

SECRET = "hunter2"  # noqa: S105 - it must never be shown
ROOT = Path(__file__).parents[2]


@pytest.fixture
def page() -> Iterator[io.StringIO]:
    """What a handler writes, extra fields too."""
    page, log = io.StringIO(), logging.getLogger("taskyard.under_test")
    handler = logging.StreamHandler(page)
    handler.setFormatter(logging.Formatter("%(message)s|%(extra)s", defaults={"extra": ""}))
    log.addHandler(handler)
    yield page
    log.removeHandler(handler)


class DriverError(Exception):
    """A server's error that quotes what it was given."""


def fail(text: str) -> None:
    raise DriverError(text)


@pytest.mark.parametrize(
    "text",
    [
        f"cannot log in with password={SECRET}",
        f"cannot reach redis://worker:{SECRET}@host:6379/0",
        f"refused: Authorization: Bearer {SECRET}{SECRET}",
        f'{{"user": "u", "api_key": "{SECRET}"}}',
    ],
)
def test_an_errors_text_is_masked_in_the_message_and_in_the_traceback(
    page: io.StringIO, text: str
) -> None:
    log = logger("taskyard.under_test")
    try:
        fail(text)
    except DriverError as error:
        log.warning("the server refused: %s", error)
        log.exception("the server refused")
        log.error("the intent failed", exc_info=error)
    written = page.getvalue()
    assert SECRET not in written
    assert written.count("[redacted]") >= 3
    ends = re.findall(r"^\S+DriverError: ", written, re.MULTILINE)
    assert len(ends) == 2, "the tracebacks stay"


def test_arguments_of_every_kind_are_masked(page: io.StringIO) -> None:
    log = logger("taskyard.under_test")
    log.warning("args %r", {"password": SECRET})
    log.warning("args %(dsn)s", {"dsn": f"amqp://u:{SECRET}@host//"})
    log.warning("args %s of %d", (f"token={SECRET}",), 3)
    log.warning("args", extra={"extra": {"nested": [{"client_secret": SECRET}]}})
    assert SECRET not in page.getvalue()
    assert page.getvalue().count("args") == 4


def test_a_line_without_a_secret_keeps_its_template_and_arguments(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger("taskyard.under_test").warning("%s waits %.1f s", "relay", 0.5, extra={"wait_s": 0.5})
    [record] = caplog.records
    assert (record.msg, record.args) == ("%s waits %.1f s", ("relay", 0.5))
    assert vars(record)["wait_s"] == 0.5


def test_a_line_that_cannot_be_written_is_reported_by_its_handler_and_raises_nothing(
    page: io.StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise ValueError("no text")

    log = logger("taskyard.under_test")
    monkeypatch.setattr(log, "propagate", False)
    log.warning("it is %s", Broken())
    assert "ValueError: no text" in capsys.readouterr().err
    assert page.getvalue() == ""


def test_a_handler_masks_what_others_log(page: io.StringIO) -> None:
    redact_handlers(logging.getLogger("taskyard.under_test"))
    logging.getLogger("taskyard.under_test.stranger").warning("password=%s", SECRET)
    assert page.getvalue() == "password=[redacted]|\n"


def test_a_logger_has_the_filter_once() -> None:
    assert len(logger("taskyard.under_test").filters) == 1
    assert len(logger("taskyard.under_test").filters) == 1


def test_every_module_takes_its_logger_from_here() -> None:
    """One line that forgets it is one secret in a log."""
    own = ROOT / "platform" / "taskyard" / "wire" / "logs.py"
    forgot = [
        str(file.relative_to(ROOT))
        for root in ("platform", "workers", "tasks", "ops")
        for file in (ROOT / root).rglob("*.py")
        if file != own and re.search(r"getLogger\(__name__\)", file.read_text("utf-8"))
    ]
    assert forgot == []
