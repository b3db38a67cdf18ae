"""`python -m bench.apps.send <app> <send function> <count> <body> <size>`: prints the seconds."""

from __future__ import annotations

import importlib
import sys
import time

__all__ = ["main"]


def main() -> None:
    """Warm up with ten jobs, then time the rest."""
    app, function, count, body, size = sys.argv[1:]
    send = getattr(importlib.import_module(f"bench.apps.{app}"), function)
    send(10, body, int(size))
    start = time.monotonic()
    send(int(count) - 10, body, int(size))
    sys.stdout.write(f"{time.monotonic() - start}\n")


if __name__ == "__main__":
    main()
