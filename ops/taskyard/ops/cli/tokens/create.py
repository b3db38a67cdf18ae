"""`taskyard tokens create`: a token for a person or a program."""

from __future__ import annotations

from typing import Annotated

import typer

from taskyard import database
from taskyard.control import identify, tokens
from taskyard.ops.cli.options import Json, duration
from taskyard.ops.cli.rights_options import (
    Domains,
    Granted,
    Queues,
    Reason,
    RoleOption,
    note_unknown_queues,
    rights_of,
)
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.tokens.print_token import print_issued

__all__ = ["command"]


def command(
    subject: Annotated[
        str, typer.Argument(help="Who acts with it, as the audit log names them: ada@example.com.")
    ],
    role: RoleOption,
    reason: Reason = None,
    expires: Annotated[
        str, typer.Option(help="How long it is valid: 12h, 30d, up to 366d.")
    ] = f"{tokens.DEFAULT_LIFETIME.days}d",
    queues: Queues = None,
    domains: Domains = None,
    grant: Granted = None,
    json: Json = False,
) -> None:
    """Create a token and show it once.

    Needs the identity of an admin without bounds; create the first token with
    TASKYARD_TRUST_LOCAL=1. Standard output gets only the token; the database keeps its hash.
    """
    settings = find_target(quiet=json).settings
    rights = rights_of(role, queues, domains, grant)
    lifetime = duration(expires, "--expires")
    with database.opened(
        settings.need_database_url(), application_name="taskyard tokens"
    ) as engine:
        identity = identify(engine, settings)
        issued = tokens.create(
            engine, subject, rights, identity=identity, reason=reason, lifetime=lifetime
        )
    if not json:
        note_unknown_queues(rights, settings)
    print_issued(issued, json=json)
