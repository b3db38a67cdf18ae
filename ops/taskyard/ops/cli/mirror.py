"""`taskyard mirror`: dead letters and the lifecycle stream into Postgres."""

from __future__ import annotations

import os

from taskyard import database
from taskyard.mirror import Mirror, letter_source
from taskyard.ops.cli.daemon import run_until_stopped
from taskyard.ops.cli.target_servers import find_target
from taskyard.settings import refuse_operator_credentials
from taskyard.store import connect

__all__ = ["command"]


def command() -> None:
    """Copy dead letters and job history into Postgres.

    Any number may run side by side. While a server does not answer it waits and loses nothing.
    """
    settings = find_target(quiet=False).settings
    refuse_operator_credentials(settings, os.environ, "mirror")
    url = settings.need_database_url()
    database.check(url)
    with database.opened(url, application_name="taskyard mirror") as engine:
        client = connect(settings.need_redis_url())
        letters = letter_source(settings, client)
        mirror = Mirror(settings, engine=engine, client=client, letters=letters)
        run_until_stopped("mirror", mirror.run)
