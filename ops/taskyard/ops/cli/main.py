"""The entry point: run one command, report every failure in one line, exit with its code."""

from __future__ import annotations

import sys

from taskyard.ops.cli.standard_streams import open_missing

__all__ = ["main"]

_MISSING_EXTRA = 2
_INTERRUPTED = 130


def main() -> None:
    """`taskyard`, as the installed script calls it."""
    open_missing()
    try:
        from taskyard.ops.cli.root_command import run  # noqa: PLC0415 - its libraries may be missing
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"error: {error.name} is not installed; the command line needs it. "
            "Run: pip install 'taskyard[ops]'\n"
        )
        sys.exit(_MISSING_EXTRA)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    sys.exit(run(sys.argv[1:]))
