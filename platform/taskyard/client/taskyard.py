"""The client: enqueue jobs, and get their state and result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from datetime import datetime
from functools import partial
from typing import Any, Self, TypeVar, Unpack
from weakref import WeakKeyDictionary

from celery import Celery
from redis.exceptions import RedisError

from taskyard.broker import Publisher, make_app, make_publisher
from taskyard.broker.connection import same_redis
from taskyard.client.admit_and_publish import Sender
from taskyard.client.awaited_results import AwaitedResults
from taskyard.client.batch import Batch
from taskyard.client.check_request import (
    CheckedRequest,
    EnqueueOptions,
    EnqueueRequest,
    Seconds,
    check,
)
from taskyard.client.job_handle import JobHandle
from taskyard.client.render_message import Renderer
from taskyard.client.result_listener import Listener
from taskyard.client.shared_calls import SharedCalls
from taskyard.errors import InvalidSettings, NotReplicated, PublishFailed
from taskyard.jobs import Catalogue, registry
from taskyard.records import Admitted, Records
from taskyard.settings import Settings, load
from taskyard.store import TRIES, connect, disown, explained, reachable

__all__ = ["Taskyard"]

T = TypeVar("T")
# Not a hook of the interpreter for each client: that would keep each client in memory for ever.
_renewals: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def renew_in_children(client: T, renew: Callable[[T], None]) -> None:
    """Make every process that is forked from now on call `renew(client)` first.

    A client that nothing else references is garbage-collected.
    """
    _renewals[client] = renew


def _renew_all() -> None:
    for client, renew in list(_renewals.items()):
        renew(client)


os.register_at_fork(after_in_child=_renew_all)


class Taskyard:
    """A client of one Taskyard installation; threads may share it.

    Without arguments it reads `TASKYARD_*` variables and `taskyard.toml`, the job types that
    `TASKYARD_JOB_TYPES` names, and those whose decorators this process has imported. Raises
    `MissingSetting` or `InvalidSettings` at once.
    """

    _app: Celery | None = None

    def __init__(
        self, settings: Settings | None = None, catalogue: Catalogue | None = None
    ) -> None:
        self.settings = load().settings if settings is None else settings
        if catalogue is None:
            catalogue = registry.under(Catalogue.of(self.settings))
        self.catalogue = catalogue
        self._url = self.settings.need_redis_url()
        if self.settings.replicas and not same_redis(self.settings):
            raise InvalidSettings(
                f"TASKYARD_REPLICAS is {self.settings.replicas}; it counts replicas of a Redis "
                f"that holds both records and queues, but here the broker is another server. "
                f"Unset it: RabbitMQ confirms each message itself, and for a second Redis "
                f"Taskyard does not wait"
            )
        self._open()
        renew_in_children(self, Taskyard._renew)

    def _open(self) -> None:
        """Create the connections and threads of one process; they connect later."""
        timeout_s = self.settings.publish_timeout_s
        client = connect(self._url, timeout_s=timeout_s / TRIES)
        self.records = Records(client, self.settings, domain_of=self.catalogue.domain_of)
        publisher = make_publisher(self.settings, self.records.now_us)
        self.publisher: Publisher = publisher
        self._disown = publisher.disown
        self._renderer = Renderer(self.settings, publisher, lambda: self.app)
        self._sender = Sender(self.settings, self.records, publisher)
        self._calls = SharedCalls(self._sender, self._explained, timeout_s)
        self.awaited = AwaitedResults(
            partial(Listener, self.records, self.catalogue), self._explained
        )

    def _renew(self) -> None:
        """Create a forked process' own connections; nothing is sent over the parent's."""
        disown(self.records.client)
        self._disown()
        self._app = None
        self._open()

    @property
    def app(self) -> Celery:
        """The client's Celery app, for canvas and `AsyncResult`."""
        # Not `cached_property`: up to Python 3.11 it has a lock, which may be locked after a fork.
        if self._app is None:
            self._app = make_app(self.settings, self.catalogue, "taskyard-client")
        return self._app

    def enqueue(
        self,
        job_type: str,
        payload: Any,
        *,
        queue: str | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
        unique_for: Seconds | None = None,
        countdown: Seconds | None = None,
        expires: datetime | Seconds | None = None,
        reply_to: str | None = None,
        policy: Mapping[str, object] | None = None,
    ) -> JobHandle:
        """Enqueue one job and return its handle; when it returns, the broker has the message.

        `priority` is 1 to the queue's highest (the most urgent). With an `idempotency_key` the
        job's id is fixed by type and key, and for `unique_for` (seconds or timedelta, default
        `unique_for_s`, 24 h) a second enqueue returns the first job with `created=False`.
        `countdown` delays, `expires` (seconds from now or an aware datetime) bounds the start;
        `policy` overrides fields of the type's retry policy.

        Raises `UnknownJobType`, `UnknownQueue`, `UnknownPriority`, `InvalidPayload`,
        `PayloadTooLarge`, `ServerUnreachable`, `PublishFailed`; `KillSwitchOn` for a new job
        while an operator's kill switch is on; `NotReplicated` where `replicas` must confirm
        and too few do.
        """
        request = EnqueueRequest(
            job_type=job_type,
            payload=payload,
            queue=queue,
            priority=priority,
            idempotency_key=idempotency_key,
            unique_for=unique_for,
            countdown=countdown,
            expires=expires,
            reply_to=reply_to,
            policy=policy,
        )
        checked = check(request, self.settings, self.catalogue)
        rendered = self._renderer.render(checked)
        with reachable(self._url):
            admitted = self._calls.admit(rendered)
        return self._handle(checked, admitted)

    async def aenqueue(
        self, job_type: str, payload: Any, **options: Unpack[EnqueueOptions]
    ) -> JobHandle:
        """Enqueue one job in asyncio: `enqueue` with the same arguments, answers and errors.

        Calls at the same time share scripts, at most 50 a script; each gets its own answer
        or error, and a single call does not wait for others. Calls of several event loops
        may share the client.

        A call may be cancelled, for example by `asyncio.timeout`. If its script was not
        sent yet, the job is not enqueued; after that the job is enqueued all the same. With
        an `idempotency_key`, call again: the second call finds the job or creates it. Then
        `created=False` may mean that the cancelled call created the job. Without a key a
        second call may create a second job.
        """
        request = EnqueueRequest(job_type=job_type, payload=payload, **options)
        checked = check(request, self.settings, self.catalogue)
        rendered = self._renderer.render(checked)
        with reachable(self._url):
            admitted = await self._calls.aadmit(rendered)
        return self._handle(checked, admitted)

    def enqueue_many(self, requests: Iterable[EnqueueRequest]) -> list[JobHandle]:
        """Enqueue many jobs, 50 a script; return their handles in the order of the requests.

        Every request is checked before the first is sent. The messages of the next script
        are built while the server works on the last one. Raises as `enqueue` does. If Redis
        fails in between, `PublishFailed` says how many jobs are known to be enqueued;
        requests with an idempotency key are safe to repeat. `NotReplicated` names the jobs
        at which the call stopped, and the requests that are not enqueued. A kill switch
        refuses only its own requests: the others are enqueued, then `KillSwitchOn` names
        the positions of those that are not, and the ids of those that are.
        """
        checked = [check(request, self.settings, self.catalogue) for request in requests]
        batch = Batch(checked, self._handle)
        with reachable(self._url):
            self.records.client.ping()
        rendered = self._renderer.render_all(batch.requests_to_send())
        try:
            with closing(self._sender.ahead(rendered)) as answered:
                for outcomes in answered:
                    batch.add_outcomes(outcomes)
        except NotReplicated as error:
            raise batch.unreplicated(error) from error
        except (RedisError, PublishFailed) as error:
            raise batch.broken(error) from error
        return batch.finish()

    def job(self, job_id: str) -> JobHandle:
        """Return the handle of a job that was enqueued elsewhere."""
        return JobHandle(self, job_id, created=False)

    def close(self) -> None:
        """Wait for the calls that are being sent, and close the connections."""
        self._calls.close()
        self.awaited.close()
        self.records.client.close()
        self.publisher.close()
        if self._app is not None:
            # kombu shares its broker connections by URL in the whole process; those for results are
            # our own.
            consumer = self._app.backend.result_consumer
            consumer.stop()
            # Otherwise a result object that is garbage-collected later would connect again, to
            # unsubscribe.
            consumer.subscribed_to.clear()
            self._app.backend.client.connection_pool.disconnect()
            self._app.close()

    def __enter__(self) -> Self:
        """Return the client, for a `with` block that closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the client at the end of the `with` block."""
        self.close()

    def _handle(self, request: CheckedRequest, admitted: Admitted) -> JobHandle:
        return JobHandle(self, request.job_id, created=admitted.created)

    def _explained(self, error: Exception) -> Exception:
        return explained(error, self._url) if isinstance(error, RedisError) else error
