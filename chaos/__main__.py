"""`python -m chaos`: every storm over every broker it is for; exit code 1 if something was lost."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from chaos.report import put, read_json, table, write_json, write_table
from chaos.run import Plan, blow
from chaos.storms import STORMS
from chaos.town import ROOT


def main() -> int:
    """Parse, run, write."""
    options = _options()
    logging.disable(logging.CRITICAL)  # the client's complaints about the storm are expected
    results = read_json(options.out) if options.more else []
    for name in options.storms or STORMS:
        for broker in options.brokers:
            if broker in STORMS[name].brokers:
                plan = Plan(name, broker, options.jobs, options.seed, options.rate)
                results = put(results, _one(plan))
                write_json(options.out, options.seed, results)
    if options.page is not None:
        said = (
            f"{options.jobs:,} jobs a storm at {options.rate:g} a second, seed {options.seed}, "
            "two workers of two processes, on two cores that others used as well. "
            f"Again: `make chaos JOBS={options.jobs} RATE={options.rate:g}`."
        )
        write_table(options.page, results, said)
    sys.stdout.write(table(results))
    return int(any(_bad(result) for result in results))


def _one(plan: Plan) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="taskyard-storm-"))
    sys.stderr.write(f"{plan.storm} over {plan.broker} ...\n")
    result = blow(plan, folder).document()
    sys.stderr.write(f"  {result}\n")
    if _bad(result):
        sys.stderr.write(f"  kept: {folder}\n")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _bad(result: dict[str, Any]) -> bool:
    names = ("lost", "doubled", "letters_without_row")
    return any(result.get(name) for name in names)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=150.0, help="jobs a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--storms", nargs="*", choices=list(STORMS), metavar="STORM")
    parser.add_argument("--brokers", nargs="*", default=["redis", "rabbitmq"])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "chaos.json")
    parser.add_argument("--more", action="store_true", help="keep what OUT has of other storms")
    parser.add_argument("--page", type=Path, default=None)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
