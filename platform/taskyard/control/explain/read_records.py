"""What the records' Redis says of a job: its record, the workers that live, the switches.

Alone because each server that may be silent has its own file.
"""

from __future__ import annotations

from taskyard.control.explain.job_facts import FromRecords
from taskyard.inspection.next_queue import SUCCESSOR, next_queues
from taskyard.inspection.record_fields import read_records as read_seen
from taskyard.install.announced_queues import AnnouncedQueues
from taskyard.jobs.states import State
from taskyard.records import Fleet, Records, lives
from taskyard.settings import Settings
from taskyard.switches import RedisSwitches

__all__ = ["read_records"]


def read_records(settings: Settings, records: Records, job_id: str) -> FromRecords:
    """Read the record last, so that a worker that began it is among the workers.

    Raises redis-py's errors.
    """
    switches = RedisSwitches(records.client, settings.namespace).read()
    now_us, members = Fleet(records.client, settings.namespace).read()
    record = records.read(job_id)
    queue = ""
    if record.state is State.RETRYING:
        seen = read_seen(records.client, records.keys, [job_id])
        queue = next_queues(records.client, records.keys, seen)[job_id]
    alive = None
    if record.state is State.RUNNING:
        worker, began_us = record.fields.get("worker", ""), record.number("started")
        alive = lives(members, worker, began_us, now_us)
    announced = AnnouncedQueues(records.client, settings.namespace).all()
    return FromRecords(
        now_us=now_us,
        record=record,
        workers=[member for member in members if member.alive(now_us)],
        switches=switches.in_force(),
        worker_lives=alive,
        next_queue="" if queue == SUCCESSOR else queue,
        replaced=queue == SUCCESSOR,
        app_queues=sorted({one.queue for one in announced}),
    )
