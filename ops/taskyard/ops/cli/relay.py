"""`taskyard relay`: carry operators' intents from the outbox to record and broker."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial

from sqlalchemy import Engine

from taskyard import audit, database
from taskyard.audit import HeadFile, Sealer
from taskyard.gate import Gate
from taskyard.install import AnyQueuePublisher
from taskyard.ops.cli.daemon import run_until_stopped
from taskyard.ops.cli.target_servers import find_target
from taskyard.reconcile import Reconciler, watch
from taskyard.records import Records
from taskyard.relay import Relay, Retention, SwitchKeeper
from taskyard.settings import Settings, refuse_operator_credentials
from taskyard.store import connect
from taskyard.switches import RedisSwitches

__all__ = ["command", "run_beside"]


def command() -> None:
    """Carry out operators' actions, such as replays.

    Any number may run side by side. While a server does not answer it waits and loses nothing;
    after a restore it waits for `taskyard reconcile --accept`. Every minute it compares broker,
    records and ledger and logs what disagrees; every five seconds it seals the audit log; every two
    seconds it gives Redis the pauses and kill switches that Redis lacks; every hour it deletes and
    archives what is past its retention. If one of these fails for another reason than an outage,
    the process ends.
    """
    settings = find_target(quiet=False).settings
    refuse_operator_credentials(settings, os.environ, "relay")
    url = settings.need_database_url()
    client = connect(settings.need_redis_url())
    quick = connect(settings.need_redis_url(), retries=0, timeout_s=2)
    records = Records(client, settings)
    publisher = AnyQueuePublisher(settings, records)
    database.check(url)
    with database.opened(url, application_name="taskyard relay") as engine:
        gate = Gate(settings.namespace, client)
        relay = Relay(settings, engine, records, publisher, gate, queues=publisher)
        with closing(Reconciler(settings, engine, records, publisher)) as reconciler:
            beside: dict[str, Callable[[threading.Event], None]] = {
                "reconcile": partial(watch, reconciler),
                "seal": _sealer(settings, engine).run,
                "retention": Retention(settings, engine).run,
                "switches": SwitchKeeper(engine, RedisSwitches(quick, settings.namespace)).run,
            }
            run_until_stopped("relay", lambda stop: run_beside(relay.run, beside, stop))


def _sealer(settings: Settings, engine: Engine) -> Sealer:
    path = settings.audit_head_file
    file = None if path is None else HeadFile(path)
    last = None if file is None else file.last()
    return Sealer(engine, lambda seal: audit.exported(seal, file), last)


def run_beside(
    daemon: Callable[[threading.Event], None],
    beside: Mapping[str, Callable[[threading.Event], None]],
    stop: threading.Event,
) -> None:
    """Run `daemon` here and each of `beside` in a thread, until `stop` is set or one of them ends.

    An error of any of them is raised: a relay whose watcher has failed must not look healthy.
    """
    with ExitStack() as threads:
        running = []
        for name, work in beside.items():
            pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
            running.append(threads.enter_context(pool).submit(work, stop))
            running[-1].add_done_callback(lambda _: stop.set())
        try:
            daemon(stop)
        finally:
            stop.set()
    for each in running:
        each.result()
