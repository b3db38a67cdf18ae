"""`taskyard migrate`: the schema of Postgres."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from taskyard import database
from taskyard.ops.cli.console import print_json, say
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.target_servers import find_target

__all__ = ["command"]


def command(
    to: Annotated[
        str,
        typer.Option("--to", help="A version's number, `head`, or `base` to drop everything."),
    ] = "head",
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail unless the schema is at head.")
    ] = False,
    roles: Annotated[
        bool, typer.Option("--roles", help="Change nothing; print the SQL that makes the roles.")
    ] = False,
    json: Json = False,
) -> None:
    """Migrate the database schema to this version.

    One transaction, one migrator at a time: it is safe to start many at once. `--roles` prints the
    SQL that gives mirror, relay and operators a role of their own, and readers another; run it
    after each migration, as the database's administrator.
    """
    url = find_target(quiet=json).settings.need_database_url()
    if roles:
        if check or to != "head":
            raise typer.BadParameter(
                "it cannot be combined with --check or --to", param_hint="--roles"
            )
        _print_roles(url, json=json)
        return
    if check and to != "head":
        raise typer.BadParameter(
            "it compares with the newest schema and cannot be combined with --to",
            param_hint="--check",
        )
    status = database.check(url) if check else database.migrate(url, to)
    if json:
        print_json(asdict(status))
    else:
        say(f"the schema is at {status.current or 'nothing: no table is left'}")


def _print_roles(url: str, *, json: bool) -> None:
    database.check(url)
    with (
        database.opened(url, application_name="taskyard migrate") as engine,
        engine.connect() as connection,
    ):
        sql = database.roles_sql(connection)
    if json:
        print_json({"sql": sql})
    else:
        say(sql)
