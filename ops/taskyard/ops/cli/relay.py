"""`taskyard relay`: operators' intents from the outbox to record and broker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from taskyard import database
from taskyard.gate import Gate
from taskyard.install import FleetPublisher
from taskyard.ops.cli.daemon import run_until_stopped
from taskyard.ops.cli.target import find_target
from taskyard.reconcile import Reconciler, watch
from taskyard.records import Records
from taskyard.relay import Relay
from taskyard.store import connect

__all__ = ["command", "run_watched"]


def command() -> None:
    """Carry out what operators asked for.

    Any number may run side by side. While a server is away it waits and loses nothing; after a
    restore it waits for `taskyard reconcile --accept`. Every minute it compares broker, records
    and ledger and logs what disagrees; if that fails for another reason than an outage, it ends.
    """
    settings = find_target(quiet=False).settings
    url = settings.need_database_url()
    client = connect(settings.need_redis_url())
    records = Records(client, settings)
    publisher = FleetPublisher(settings, records)
    database.check(url)
    with database.opened(url, application_name="taskyard relay") as engine:
        gate = Gate(settings.namespace, client)
        relay = Relay(settings, engine, records, publisher, gate, queues=publisher)
        with closing(Reconciler(settings, engine, records, publisher)) as reconciler:
            run_until_stopped(
                "relay",
                lambda stop: run_watched(relay.run, lambda end: watch(reconciler, end), stop),
            )


def run_watched(
    daemon: Callable[[threading.Event], None],
    watcher: Callable[[threading.Event], None],
    stop: threading.Event,
) -> None:
    """Run `daemon` here and `watcher` in a thread until `stop` is set, or until one of them ends.

    What either raises is raised: a relay without its watcher must not look healthy.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="reconcile") as pool:
        watching = pool.submit(watcher, stop)
        watching.add_done_callback(lambda _: stop.set())
        try:
            daemon(stop)
        finally:
            stop.set()
    watching.result()
