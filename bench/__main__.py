"""`python -m bench`: measure, print a table, write build/bench.json."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.benchmarks import BENCHMARKS, BY_NAME
from bench.contenders import (
    CELERY,
    CELERY_RABBITMQ,
    NAIVE_LOCK,
    RIVALS,
    TASKYARD,
    TASKYARD_RABBITMQ,
)
from bench.environments import prepare
from bench.machine import describe
from bench.plan import FULL, QUICK, Plan
from bench.processes import ROOT, Bench
from bench.report import show
from bench.suite import Benchmark, Figures, Outcome, announce, run
from taskyard.ops.embedded import EmbeddedStack

BUILD = ROOT / "build"
_CONTENDERS = (TASKYARD, CELERY, NAIVE_LOCK, TASKYARD_RABBITMQ, CELERY_RABBITMQ, *RIVALS)


def main() -> int:
    """Run the benchmarks; exit code 1 if one failed, with the figures of all others written."""
    options = _options()
    # Workers that wait for their turn are stopped; ended this way, they would stay so for ever.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    plan = QUICK if options.quick else FULL
    benchmarks = [each for each in (*BENCHMARKS, *BY_NAME) if each.name in (options.only or ())]
    benchmarks = benchmarks or list(BENCHMARKS)
    announce(benchmarks, plan, _say)
    # Some parts are no report: the last whole one stays.
    out = options.out or BUILD / ("bench-parts.json" if options.only else "bench.json")
    figures = _measured(benchmarks, plan, out)
    show(figures)
    sys.stdout.write(f"written to {out}\n")
    failed = [each for each in figures["course"]["parts"] if each["outcome"] is Outcome.FAILED]
    return int(bool(failed))


def _measured(benchmarks: Sequence[Benchmark], plan: Plan, out: Path) -> Figures:
    home = BUILD / "bench-home"
    home.parent.mkdir(exist_ok=True)
    shutil.rmtree(home, ignore_errors=True)
    with EmbeddedStack(home) as stack:
        bench = Bench(stack.redis_url, BUILD)
        if any(benchmark.name == "rivals" for benchmark in benchmarks):
            for rival in RIVALS:
                prepare(rival, bench.environments)
        head: Figures = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "form": plan.form,
            "machine": describe(bench.url),
            "settings": {each.name: each.note for each in _CONTENDERS},
        }
        # What is there already survives an interruption; the last whole report stays until then.
        partial = out.with_suffix(".partial.json")
        figures = head | run(
            benchmarks,
            bench,
            stack.database_url,
            plan,
            _say,
            lambda found: _write(partial, {**head, **found}),
        )
    shutil.rmtree(home, ignore_errors=True)
    partial.replace(out)
    return figures


def _write(path: Path, figures: Figures) -> None:
    path.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few minutes, fewer rounds")
    parser.add_argument(
        "--only",
        action="append",
        choices=[benchmark.name for benchmark in (*BENCHMARKS, *BY_NAME)],
        help="measure this benchmark alone; may be repeated",
    )
    parser.add_argument("--out", type=Path, help="where to write, build/bench.json by default")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
