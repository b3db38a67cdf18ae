"""The entry point: run one command, tell every failure in one line, exit with its code."""

from __future__ import annotations

import sys

__all__ = ["main"]

_MISSING_EXTRA = 2


def main() -> None:
    """`taskyard`, as the installed script calls it."""
    try:
        from taskyard.ops.cli.app import run  # noqa: PLC0415 - its libraries may be missing
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"error: {error.name} is not installed; the command line needs it. "
            "Run: pip install 'taskyard[ops]'\n"
        )
        sys.exit(_MISSING_EXTRA)
    sys.exit(run(sys.argv[1:]))
