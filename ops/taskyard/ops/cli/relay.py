"""`taskyard relay`: operators' intents from the outbox to record and broker."""

from __future__ import annotations

import threading

from taskyard import database
from taskyard.broker import make_publisher
from taskyard.gate import Gate
from taskyard.ops.cli.duty import run_until_stopped
from taskyard.ops.cli.place import find_place
from taskyard.reconcile import Reconciler, watch
from taskyard.records import Records
from taskyard.relay import Relay
from taskyard.store import connect

__all__ = ["command"]


def command() -> None:
    """Carry out what operators asked for.

    Any number may run side by side. While a server is away it waits and loses nothing; after a
    restore it waits for `taskyard reconcile --accept`. Every minute it compares broker, records
    and ledger and logs what disagrees.
    """
    settings = find_place(quiet=False).settings
    url = settings.need_database_url()
    client = connect(settings.need_redis_url())
    records, publisher = Records(client, settings), make_publisher(settings)
    database.check(url)
    engine = database.engine(url, application_name="taskyard relay")
    relay = Relay(settings, engine, records, publisher, Gate(settings.namespace, client))
    reconciler = Reconciler(settings, engine, records, publisher)

    def run(stop: threading.Event) -> None:
        watcher = threading.Thread(target=watch, args=(reconciler, stop), name="reconcile")
        watcher.start()
        try:
            relay.run(stop)
        finally:
            stop.set()
            watcher.join()
            reconciler.close()

    run_until_stopped("relay", run)
