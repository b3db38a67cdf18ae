"""`taskyard tokens revoke`: end a token at once."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from taskyard import database
from taskyard.control import identify, tokens
from taskyard.ops.cli.console import print_json, say
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.rights_options import Reason
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.tokens.print_token import check_id

__all__ = ["command"]


def command(
    token_id: Annotated[
        str, typer.Argument(metavar="ID", help="Its 12 digits, as `tokens list` shows them.")
    ],
    reason: Reason = None,
    json: Json = False,
) -> None:
    """End a token at once.

    Its earlier actions stay done; the audit log lists them.
    """
    settings = find_target(quiet=json).settings
    name = check_id(token_id)
    with database.opened(
        settings.need_database_url(), application_name="taskyard tokens"
    ) as engine:
        info = tokens.revoke(engine, name, identity=identify(engine, settings), reason=reason)
    if json:
        print_json(asdict(info))
    else:
        say(f"revoked the token {info.id} of {info.subject}")
