"""`taskyard users grant`: give rights to a name that another system signs in."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from taskyard import database
from taskyard.control import identify, users
from taskyard.ops.cli.console import print_json, say
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.rights_options import (
    Domains,
    Granted,
    Queues,
    Reason,
    RoleOption,
    bounds_text,
    note_unknown_queues,
    rights_of,
)
from taskyard.ops.cli.target_servers import find_target

__all__ = ["command"]


def command(
    name: Annotated[
        str, typer.Argument(help="The name, exactly as Flower or the proxy writes it.")
    ],
    role: RoleOption,
    reason: Reason = None,
    queues: Queues = None,
    domains: Domains = None,
    grant: Granted = None,
    json: Json = False,
) -> None:
    """Give rights to a name, in place of its present ones.

    For people who sign in through another system. A name without a grant may do nothing.
    """
    settings = find_target(quiet=json).settings
    rights = rights_of(role, queues, domains, grant)
    with database.opened(settings.need_database_url(), application_name="taskyard users") as engine:
        given = users.grant(
            engine, name, rights, identity=identify(engine, settings), reason=reason
        )
    if json:
        print_json(asdict(given))
        return
    note_unknown_queues(rights, settings)
    say(f"{given.subject} is {given.role}, bounds: {bounds_text(given.queues, given.domains)}")
