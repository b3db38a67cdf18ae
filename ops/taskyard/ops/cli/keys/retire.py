"""`taskyard keys retire`: end a key, after an overlap with its successor."""

from __future__ import annotations

from typing import Annotated

import typer

from taskyard import database
from taskyard.control import identify, keys
from taskyard.ops.cli.console import print_json, say
from taskyard.ops.cli.keys.find_key_ring import need_ring
from taskyard.ops.cli.options import Json, duration
from taskyard.ops.cli.rights_options import Reason
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.time_text import moment

__all__ = ["command"]


def command(
    key_id: Annotated[
        str, typer.Argument(metavar="ID", help="Its 16 digits, as `keys list` shows them.")
    ],
    reason: Reason = None,
    overlap: Annotated[
        str,
        typer.Option(help="How long it is still accepted; 0s ends it at once, if it was stolen."),
    ] = "1h",
    json: Json = False,
) -> None:
    """End a key; by default an hour later, so that messages signed before are still accepted.

    Workers notice a changed copy of the key ring within 5 s.
    """
    settings = find_target(quiet=json).settings
    ring = need_ring(settings)
    with database.opened(settings.need_database_url(), application_name="taskyard keys") as engine:
        key = keys.retire(
            engine,
            ring,
            key_id,
            identity=identify(engine, settings),
            reason=reason,
            overlap=duration(overlap, "--overlap"),
        )
    if json:
        print_json({"key": key.key_id, "not_after": key.not_after, "ring": ring})
    else:
        say(f"the key {key.key_id} ends at {moment(key.not_after)}")
