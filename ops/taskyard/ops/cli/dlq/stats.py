"""`taskyard dlq stats`: how many letters there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from taskyard import database
from taskyard.control import letters, reader_of
from taskyard.ops.cli.console import print_json, put, say, table
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.target_servers import find_target

__all__ = ["command"]


def command(json: Json = False) -> None:
    """Count dead letters by status and category.

    Categories are counted for the letters that wait for an operator.
    """
    settings = find_target(quiet=json).settings
    with database.opened(settings.need_database_url()) as engine:
        counted = letters.stats(engine, identity=reader_of(engine, settings))
    if json:
        print_json(asdict(counted))
        return
    say(f"{counted.total} dead letter{'s' * (counted.total != 1)}")
    _print("status", counted.by_status)
    _print("category of those that wait", counted.by_category)


def _print(name: str, counts: Mapping[str, int]) -> None:
    if counts:
        rows = sorted(counts.items(), key=lambda pair: -pair[1])
        put(table((name, "letters"), rows))
