"""The connections and rules that all parts of one worker share."""

from __future__ import annotations

import os
import random
from collections import deque
from functools import cached_property
from typing import Any

import redis

from taskyard.access.verify_credential import Verifier
from taskyard.broker import ParkingPublisher, make_publisher
from taskyard.clock import SYSTEM_CLOCK
from taskyard.deadletters import LetterBox
from taskyard.engine.count_denied_broadcasts import DeniedBroadcasts
from taskyard.engine.known_switches import KnownSwitches
from taskyard.engine.lease_releases import Releases
from taskyard.engine.pool_process_memory import ProcessMemory
from taskyard.engine.ports import WorkerPorts
from taskyard.engine.read_message import broker_queue
from taskyard.engine.revoked_stamps import RevokedStamps
from taskyard.engine.signed_broadcasts import Broadcasts
from taskyard.jobs import Catalogue
from taskyard.records import Record, Records, Stop
from taskyard.records.command_events import CommandEvents
from taskyard.records.denied_broadcast_reports import DeniedReports
from taskyard.records.verb_events import VerbEvents
from taskyard.runner import Rules, Runner
from taskyard.runner.attempt_steps import AttemptSteps
from taskyard.settings import Settings
from taskyard.store import connect
from taskyard.wire.failure_backoff import FailureBackoff

__all__ = ["WorkerContext"]


class WorkerContext:
    """The connections and rules of one worker; it connects at first use."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self.settings = settings
        self.catalogue = catalogue
        # A seeded generator would give every forked child the same jitter.
        self.rules = Rules(catalogue, random.SystemRandom())

    @property
    def returns_abandoned(self) -> bool:
        """Return whether this worker also returns messages that dead workers took.

        That concerns workers with kombu's own transport.
        """
        return False

    @cached_property
    def records(self) -> Records:
        """Return the job records, connected for this process."""
        client = connect(self.settings.need_redis_url())
        return Records(client, self.settings, domain_of=self.catalogue.domain_of)

    # Set by the consumer, in the main process.
    ports: WorkerPorts | None = None

    @cached_property
    def known_switches(self) -> KnownSwitches:
        """Return the switches as this worker knows them, in the main process.

        A worker with nothing but jobs waits until it has read them: no job could begin anyway.
        """
        return KnownSwitches(SYSTEM_CLOCK, holds_unread=self.only_jobs)

    @cached_property
    def backoff(self) -> FailureBackoff:
        """Return the failures of the main process that last, such as a Redis that refuses."""
        return FailureBackoff()

    @cached_property
    def stops(self) -> deque[Stop]:
        """Return requests to stop attempts: a thread takes them, the main loop carries them out."""
        return deque()

    @cached_property
    def releases(self) -> Releases:
        """Return the leases that the main process must release."""
        return Releases(self.records.attempts)

    @cached_property
    def memory(self) -> ProcessMemory:
        """Return the memory of the pool's processes, as the main process measured it."""
        return ProcessMemory(SYSTEM_CLOCK)

    @property
    def only_jobs(self) -> bool:
        """Return whether every task that this worker knows is a job of ours."""
        return True

    @property
    def has_jobs(self) -> bool:
        """Return whether some task that this worker knows is a job of ours."""
        return True

    def owns(self, _job_type: str) -> bool:
        """Return whether a task is a job of ours; an empty name is that of an unknown task."""
        return True

    @cached_property
    def revoked_stamps(self) -> RevokedStamps:
        """Return the stamps that a control command has revoked, in the main process."""
        return RevokedStamps(SYSTEM_CLOCK)

    @cached_property
    def command_events(self) -> CommandEvents:
        """Return the writer of control commands to the lifecycle stream, in the main process."""
        settings = self.settings
        client = self.records.client
        return CommandEvents(client, settings.namespace, settings.lifecycle_max_events)

    @cached_property
    def broadcasts(self) -> Broadcasts:
        """Return the signed broadcasts of this worker, in the main process."""
        client = self.records.client
        denied = DeniedBroadcasts(self._denied_reports(client), SYSTEM_CLOCK)
        events = VerbEvents(client, self.settings.namespace)
        return Broadcasts(Verifier(self.settings), events, denied)

    def report_denied(self, client: redis.Redis) -> None:
        """Report denied broadcasts by `client`, in the thread of the heartbeats."""
        if "broadcasts" in self.__dict__:
            self.broadcasts.denied.report(self._denied_reports(client))

    def _denied_reports(self, client: redis.Redis) -> DeniedReports:
        budget = self.settings.lifecycle_max_events
        return DeniedReports(client, self.settings.namespace, budget)

    @cached_property
    def steps(self) -> AttemptSteps:
        """Return the steps of an attempt, in a child process."""
        return AttemptSteps(self.records, self.rules, SYSTEM_CLOCK)

    @cached_property
    def runner(self) -> Runner:
        """Return the runner for attempts of job types, in a child process."""
        return Runner(self.steps)

    @cached_property
    def publisher(self) -> ParkingPublisher:
        """Return the publisher of retries and deferred messages, in the main process."""
        return make_publisher(self.settings, self.records.now_us)

    @cached_property
    def letters(self) -> LetterBox:
        """Return the publisher of dead letters, in the main process."""
        return self._letter_box()

    def _letter_box(self) -> LetterBox:
        return LetterBox(self.settings)

    @property
    def letters_here(self) -> LetterBox:
        """Return the publisher of dead letters for the calling process.

        A forked process shares no connection with its parent.
        """
        boxes, pid = self._boxes, os.getpid()
        if pid not in boxes:
            boxes[pid] = self._letter_box()
        return boxes[pid]

    @cached_property
    def _boxes(self) -> dict[int, LetterBox]:
        return {}

    def queue_of(self, broker_name: str | None) -> str:
        """Return the configured name of a broker's queue.

        A queue that the settings do not know keeps its name.
        """
        for name in self.settings.queues:
            if self.settings.broker_name(name) == broker_name:
                return name
        return broker_name or ""

    def taken_as(self, broker_name: str) -> str:
        """Return the name that records and switches have for a broker's queue."""
        return self.queue_of(broker_name)

    def source(self, message: Any) -> str:
        """Return the configured name of the queue that a message came from."""
        return self.queue_of(broker_queue(message))

    def home(self, record: Record, message: Any) -> str:
        """Return the configured name of the queue to which a job's next message belongs."""
        return record.queue or self.source(message) or "exec"
