"""`taskyard tokens rotate`: give a token a new secret; the old one stays valid for a while."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from taskyard import database
from taskyard.control import identify, tokens
from taskyard.ops.cli.options import Json, duration
from taskyard.ops.cli.rights_options import Reason
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.tokens.print_token import check_id, print_issued

__all__ = ["command"]

_OVERLAP: Final = "1h"


def command(
    token_id: Annotated[
        str, typer.Argument(metavar="ID", help="Its 12 digits, as `tokens list` shows them.")
    ],
    reason: Reason = None,
    overlap: Annotated[
        str, typer.Option(help="How long the old secret is accepted beside the new one: 0s to 7d.")
    ] = _OVERLAP,
    expires: Annotated[
        str | None,
        typer.Option(help="How long it is valid from now; by default its original lifetime."),
    ] = None,
    json: Json = False,
) -> None:
    """Give a token a new secret and show it once.

    The old one is accepted until the overlap is over, so that programs can change one by one.
    """
    settings = find_target(quiet=json).settings
    name = check_id(token_id)
    lifetime = None if expires is None else duration(expires, "--expires")
    with database.opened(
        settings.need_database_url(), application_name="taskyard tokens"
    ) as engine:
        issued = tokens.rotate(
            engine,
            name,
            identity=identify(engine, settings),
            reason=reason,
            lifetime=lifetime,
            overlap=duration(overlap, "--overlap"),
        )
    print_issued(issued, json=json)
