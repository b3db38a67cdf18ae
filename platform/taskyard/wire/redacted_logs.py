"""Log lines without secrets: an error text of a job or a server may contain a password.

Every module of Taskyard gets its logger from `logger`. In Taskyard's own processes the handlers
have the filter too, so that it also covers what Celery and others log of a job's failure.
"""

from __future__ import annotations

import logging
from typing import Final

from taskyard.wire.redaction import redact, redact_text

__all__ = ["Redacting", "logger", "redact_handlers"]

_OWN: Final = frozenset(vars(logging.makeLogRecord({})))
_FORMATTER: Final = logging.Formatter()


class Redacting(logging.Filter):
    """A filter that masks secrets in message, traceback and extra fields; it drops no record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True, always; a message without a secret keeps its template and arguments."""
        try:
            said = record.getMessage()
        except Exception:  # noqa: BLE001 - the handler gets the same error, and reports it
            return True
        shown = redact_text(said)
        if shown != said:
            record.msg, record.args = shown, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = _FORMATTER.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact_text(record.exc_text)
        for name in vars(record).keys() - _OWN:
            setattr(record, name, redact({name: getattr(record, name)})[name])
        return True


_REDACTING: Final = Redacting()


def logger(name: str) -> logging.Logger:
    """Return the logger called `name`; its records hold no secrets, whatever handles them."""
    found = logging.getLogger(name)
    found.addFilter(_REDACTING)  # a filter that exists already is not added again
    return found


def redact_handlers(of: logging.Logger) -> None:
    """Make the handlers of a logger mask secrets of all log records."""
    for handler in of.handlers:
        handler.addFilter(_REDACTING)
