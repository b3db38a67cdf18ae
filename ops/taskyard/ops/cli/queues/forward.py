"""`taskyard queues forward`: move rerouted jobs out of a RabbitMQ queue that no worker reads.

Alone because each command has a file of its own.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from taskyard import database
from taskyard.access import Action
from taskyard.control import identify
from taskyard.install import AnyQueuePublisher
from taskyard.ops.cli.console import print_json, say
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.target_servers import find_target
from taskyard.records import Records
from taskyard.relay.forward_waiting import forward_waiting
from taskyard.store import connect

__all__ = ["command"]


def command(
    queue: Annotated[str, typer.Argument(help="The queue that the jobs were moved out of.")],
    json: Json = False,
) -> None:
    """Forward moved jobs out of a RabbitMQ queue that no worker reads.

    Takes at most 10,000 messages; all others go back to where they were. Needs an identity that
    may reroute jobs of this queue; the reroutes themselves are in the audit log. At Redis the relay
    does it by itself.
    """
    settings = find_target(quiet=json).settings
    with database.opened(
        settings.need_database_url(), application_name="taskyard queues"
    ) as engine:
        identify(engine, settings).permit_on(Action.MANUAL_REROUTE, queues=(queue,), domain=None)
    with closing(connect(settings.need_redis_url())) as client:
        records = Records(client, settings)
        with closing(AnyQueuePublisher(settings, records)) as publisher:
            done = forward_waiting(settings, records, publisher, queue)
    if json:
        print_json({"queue": queue, **asdict(done)})
        return
    say(f"{done.forwarded} forwarded, {done.returned} returned to queue {queue}")
