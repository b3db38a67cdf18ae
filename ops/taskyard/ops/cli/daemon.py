"""Run a process until a signal stops it: the mirror and the relay."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType

from taskyard.ops.cli.visible_text import clean
from taskyard.wire.redacted_logs import logger, redact_handlers

__all__ = ["run_until_stopped"]

log = logger(__name__)


class _Visible(logging.Formatter):
    """Escapes control characters.

    Log lines quote text from jobs, and may be shown by a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line with a terminal's control characters escaped."""
        return clean(super().format(record))


def run_until_stopped(name: str, run: Callable[[threading.Event], None]) -> None:
    """Call `run` with an event that SIGTERM or Ctrl-C sets; a second Ctrl-C interrupts it."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Visible("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    redact_handlers(logging.getLogger())
    stop = threading.Event()

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    log.info("%s ready", name, extra={"action": f"{name}_ready"})
    run(stop)
    log.info("%s stopped", name, extra={"action": f"{name}_stopped"})
