"""Standard streams as a shell may leave them: closed, full, or without a reader."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Final, NoReturn

__all__ = ["BROKEN_PIPE", "FULL", "leave", "open_missing", "silence"]

BROKEN_PIPE: Final = 141  # 128 + SIGPIPE
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def open_missing() -> None:
    """Give streams that the shell has closed (`>&-`) an end: Python leaves None in their place."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - as long as we run
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123


def silence() -> None:
    """Send what standard output still buffers nowhere: Python's flush at exit must not fail too."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leave() -> NoReturn:
    """Exit as a program that SIGPIPE ended: the reader of the output has gone."""
    silence()
    raise SystemExit(BROKEN_PIPE)
