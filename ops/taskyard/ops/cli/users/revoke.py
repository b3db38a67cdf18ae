"""`taskyard users revoke`: remove all rights of a name that another system signs in."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from taskyard import database
from taskyard.control import identify, tokens, users
from taskyard.control.tokens import TokenState
from taskyard.ops.cli.console import note, print_json, say
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.rights_options import Reason
from taskyard.ops.cli.target_servers import find_target

__all__ = ["command"]


def command(
    name: Annotated[str, typer.Argument(help="The name, exactly as it was granted.")],
    reason: Reason = None,
    json: Json = False,
) -> None:
    """Remove all rights of a name.

    Tokens of the same name stay valid; a line lists them.
    """
    settings = find_target(quiet=json).settings
    with database.opened(settings.need_database_url(), application_name="taskyard users") as engine:
        taken = users.revoke(engine, name, identity=identify(engine, settings), reason=reason)
        left = [
            info.id
            for info in tokens.list_tokens(engine, subject=name)
            if info.state is TokenState.ACTIVE
        ]
    if json:
        print_json({**asdict(taken), "active_tokens": left})
        return
    say(f"{taken.subject} has no rights any more")
    if left:
        note(
            f"tokens of this name are still valid: {', '.join(left)}. "
            f"Run: taskyard tokens revoke {left[0]}"
        )
