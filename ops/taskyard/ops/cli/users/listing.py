"""`taskyard users list`: who has which rights after signing in through another system."""

from __future__ import annotations

from dataclasses import asdict

from taskyard import database
from taskyard.control import reader_of, users
from taskyard.ops.cli.console import note, print_json, put, table
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.rights_options import bounds_text
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.time_text import moment

__all__ = ["command"]


def command(json: Json = False) -> None:
    """List the names that have rights."""
    settings = find_target(quiet=json).settings
    with database.opened(settings.need_database_url()) as engine:
        found = users.list_users(engine, identity=reader_of(engine, settings))
    if json:
        print_json([asdict(user) for user in found])
        return
    columns = ("name", "role", "by name", "granted", "by", "bounds")
    rows = [
        (
            user.subject,
            user.role,
            ", ".join(user.granted) or "-",
            f"{moment(user.granted_at)}"[:16],
            user.granted_by,
            bounds_text(user.queues, user.domains),
        )
        for user in found
    ]
    put(table(columns, rows))
    if not found:
        note("no name has rights; give some with: taskyard users grant")
