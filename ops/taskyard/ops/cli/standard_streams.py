"""Handle standard streams that a shell has closed, that are full, or that have no reader."""

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
    """Open streams that the shell has closed (`>&-`) on the null device.

    Python leaves None for them.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - open to the end
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123


def silence() -> None:
    """Discard what standard output still buffers, or Python's flush at exit would fail too."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leave() -> NoReturn:
    """Exit like a program ended by SIGPIPE: the reader of the output has ended."""
    silence()
    raise SystemExit(BROKEN_PIPE)
