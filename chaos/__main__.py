"""`python -m chaos`: every storm over every set-up it is for; exit code 1 if a promise broke.

Storms can be run one at a time: `--storm "kill workers" --setup redis --more` keeps what the
report has of the others, and `--page PAGE --only-page` writes the page from it without a run.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from chaos.cluster import ROOT
from chaos.report import failed, put, read_json, table, write_json, write_table
from chaos.run import Plan, run_storm
from chaos.setups import SETUPS
from chaos.storms import STORMS


def main() -> int:
    """Parse, run, write."""
    options = _options()
    logging.disable(logging.CRITICAL)  # the client's complaints about the storm are expected
    results = read_json(options.out) if options.more or options.only_page else []
    for plan in () if options.only_page else _plans(options):
        results = put(results, _one(plan))
        write_json(options.out, results)
    if options.page is not None:
        write_table(options.page, results)
    sys.stdout.write(table(results))
    # Where everything must be there, a storm that cannot blow is a failure.
    skipped = os.environ.get("CI") == "true" and any(result["skipped"] for result in results)
    return int(skipped or any(failed(result) for result in results))


def _plans(options: argparse.Namespace) -> list[Plan]:
    return [
        Plan(
            name,
            setup,
            options.jobs,
            options.seed,
            min(SETUPS[setup].rate, STORMS[name].rate) if options.rate is None else options.rate,
        )
        for name in options.storm or STORMS
        for setup in options.setup or SETUPS
        if setup in STORMS[name].setups
    ]


def _one(plan: Plan) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="taskyard-storm-"))
    sys.stderr.write(f"{plan.storm} over {plan.setup}, seed {plan.seed} ...\n")
    result = run_storm(plan, folder).document()
    sys.stderr.write(f"  {result}\n")
    if failed(result):
        sys.stderr.write(f"  kept: {folder}\n")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _rate(text: str) -> float:
    rate = float(text)
    if rate <= 0:
        raise argparse.ArgumentTypeError(f"expected jobs a second, more than 0, got {text}")
    return rate


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rate", type=_rate, help="jobs a second; without it its set-up's own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--storm", action="append", choices=list(STORMS), help="repeatable")
    parser.add_argument("--setup", action="append", choices=list(SETUPS), help="repeatable")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "chaos.json")
    parser.add_argument("--more", action="store_true", help="keep what OUT has of other storms")
    parser.add_argument("--page", type=Path, default=None, help="the page whose table to replace")
    parser.add_argument("--only-page", action="store_true", help="run nothing, write from OUT")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
