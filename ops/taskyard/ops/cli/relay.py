"""`taskyard relay`: operators' intents from the outbox to record and broker."""

from __future__ import annotations

from taskyard import database
from taskyard.broker import make_publisher
from taskyard.ops.cli.duty import run_until_stopped
from taskyard.ops.cli.place import find_place
from taskyard.records import Records
from taskyard.relay import Relay
from taskyard.store import connect

__all__ = ["command"]


def command() -> None:
    """Carry out what operators asked for.

    Any number may run side by side. While a server is away it waits and loses nothing.
    """
    settings = find_place(quiet=False).settings
    url = settings.need_database_url()
    records = Records(connect(settings.need_redis_url()), settings)
    publisher = make_publisher(settings)
    database.check(url)
    engine = database.engine(url, application_name="taskyard relay")
    run_until_stopped("relay", Relay(settings, engine, records, publisher).run)
