"""`python -m bench`: measure, print a table, write build/bench.json."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.contenders import CELERY, NAIVE_LOCK, RIVALS, TASKYARD
from bench.environments import prepare
from bench.machine import describe
from bench.measure import measure
from bench.plan import FULL, QUICK
from bench.processes import ROOT, Bench
from bench.report import show
from taskyard.ops.embedded import EmbeddedStack

BUILD = ROOT / "build"


def main() -> int:
    """Run the bench; the rivals' environments are installed on the first run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under three minutes, fewer rounds")
    parser.add_argument("--out", type=Path, default=BUILD / "bench.json", help="where to write")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    BUILD.mkdir(exist_ok=True)
    home = BUILD / "bench-home"
    shutil.rmtree(home, ignore_errors=True)
    with EmbeddedStack(home) as stack:
        bench = Bench(stack.redis_url, BUILD)
        for rival in RIVALS:
            prepare(rival, bench.environments)
        head: dict[str, Any] = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "form": "quick" if options.quick else "full",
            "machine": describe(bench.url),
            "settings": {each.name: each.note for each in (TASKYARD, CELERY, NAIVE_LOCK, *RIVALS)},
        }
        figures = measure(bench, stack.database_url, plan)
    shutil.rmtree(home, ignore_errors=True)
    options.out.write_text(json.dumps({**head, **figures}, indent=2) + "\n", "utf-8")
    show(figures)
    sys.stdout.write(f"written to {options.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
