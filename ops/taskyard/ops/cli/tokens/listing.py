"""`taskyard tokens list`: who has a token, with which rights, until when."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from taskyard import database
from taskyard.clock import SYSTEM_CLOCK
from taskyard.control import reader_of, tokens
from taskyard.control.tokens import TokenInfo, TokenState
from taskyard.ops.cli.console import note, print_json, put, table
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.rights_options import bounds_text
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.time_text import age, moment

__all__ = ["command"]


def command(
    subject: Annotated[str | None, typer.Option(help="Only this person's or program's.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that expired or were revoked.")
    ] = False,
    json: Json = False,
) -> None:
    """List the tokens, without their secrets."""
    settings = find_target(quiet=json).settings
    with database.opened(settings.need_database_url()) as engine:
        reader = reader_of(engine, settings)
        found = [
            info
            for info in tokens.list_tokens(engine, subject=subject, identity=reader)
            if everything or info.state is TokenState.ACTIVE
        ]
    if json:
        print_json([asdict(info) for info in found])
        return
    columns = ("id", "subject", "role", "state", "expires", "last used", "by name", "bounds")
    put(table(columns, [_row(info) for info in found]))
    if not found:
        note("no token matches; --all also shows those that ended")


def _row(info: TokenInfo) -> tuple[object, ...]:
    used = info.last_used_at
    return (
        info.id,
        info.subject,
        info.role,
        info.state.value,
        f"{moment(info.expires_at)}"[:16],
        "never" if used is None else f"{age(used, SYSTEM_CLOCK.now())} ago",
        ", ".join(info.granted) or "-",
        bounds_text(info.queues, info.domains),
    )
