"""The client: enqueue jobs and look after them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from functools import cached_property
from typing import Any, Self

from celery import Celery
from redis.exceptions import RedisError

from taskyard.broker import RedisPublisher, make_app, make_publisher
from taskyard.broker.connection import same_redis
from taskyard.broker.template import MessageTemplate
from taskyard.client.batch import Batch
from taskyard.client.handle import JobHandle
from taskyard.client.ids import new_call_id
from taskyard.client.messages import fill, first_message
from taskyard.client.requests import CheckedRequest, EnqueueRequest, Seconds, check
from taskyard.errors import InvalidSettings, NotReplicated, PublishFailed
from taskyard.jobs import Catalogue, registry
from taskyard.jobs.states import State
from taskyard.records import OWN_ID, Admission, Admitted, Publication, Records
from taskyard.settings import Settings, load
from taskyard.store import TRIES, connect, reachable
from taskyard.wire.headers import Stamp
from taskyard.wire.unsent import Unsent

__all__ = ["Taskyard"]


class Taskyard:
    """A connection to one yard; safe to share between threads.

    Without arguments it reads `TASKYARD_*` variables and `taskyard.toml`, the job types that
    `TASKYARD_JOB_TYPES` names, and those whose decorators this process has imported. Raises
    `MissingSetting` or `InvalidSettings` at once.
    """

    def __init__(
        self, settings: Settings | None = None, catalogue: Catalogue | None = None
    ) -> None:
        self.settings = load().settings if settings is None else settings
        if catalogue is None:
            catalogue = registry.under(Catalogue.of(self.settings))
        self.catalogue = catalogue
        self._url = self.settings.need_redis_url()
        self._one_redis = same_redis(self.settings)
        if self.settings.replicas and not self._one_redis:
            raise InvalidSettings(
                f"TASKYARD_REPLICAS is {self.settings.replicas}; it counts replicas of the one "
                "Redis that holds records and queues; here the broker is another server. Unset it: "
                "RabbitMQ confirms each message itself, and a second Redis is not waited for"
            )
        client = connect(self._url, timeout_s=self.settings.publish_timeout_s / TRIES)
        self.records = Records(client, self.settings)
        self.publisher = make_publisher(self.settings, self.records.now_us)
        self._templates: dict[tuple[str, str, int], MessageTemplate] = {}

    @cached_property
    def app(self) -> Celery:
        """The Celery app under it, for canvas and `AsyncResult`."""
        return make_app(self.settings, self.catalogue, "taskyard-client")

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="taskyard-client")

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
        `PayloadTooLarge`, `ServerUnreachable`, `PublishFailed`; `NotReplicated` where
        `replicas` must confirm and too few do.
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
        with reachable(self._url):
            (admission,) = self._admissions([checked])
            return self._settled(checked, self.records.admit_many([admission])[0])

    async def aenqueue(self, job_type: str, payload: Any, **options: Any) -> JobHandle:
        """`enqueue` for asyncio: the same arguments, in one thread of this client."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._thread, lambda: self.enqueue(job_type, payload, **options)
        )

    def enqueue_many(self, requests: Iterable[EnqueueRequest]) -> list[JobHandle]:
        """Enqueue many jobs, 50 a script, while the next are made; handles in the requests' order.

        Every request is checked before the first is sent. Raises as `enqueue` does; if Redis fails
        in between, `PublishFailed` says how many are known to be enqueued, and those with an
        idempotency key are safe to repeat. `NotReplicated` names the jobs at which it stopped, and
        which requests behind them are not enqueued.
        """
        batch = Batch([check(request, self.settings, self.catalogue) for request in requests])
        with reachable(self._url):
            self.records.client.ping()
        admissions = self._admissions(batch.departures())
        try:
            with closing(self.records.admit_ahead(admissions)) as admitted:
                for answers in admitted:
                    batch.arrive(answers, self._settled)
        except NotReplicated as error:
            raise batch.unreplicated(error) from error
        except (RedisError, PublishFailed) as error:
            raise batch.broken(error) from error
        return batch.handles

    def job(self, job_id: str) -> JobHandle:
        """The handle of a job enqueued elsewhere."""
        return JobHandle(self, job_id, created=False)

    def close(self) -> None:
        """Let the connections go."""
        self.records.client.close()
        self.publisher.close()
        if "app" in self.__dict__:
            # kombu shares its broker connections by URL in the whole process; results are our own.
            self.app.backend.result_consumer.stop()
            self.app.backend.client.connection_pool.disconnect()
            self.app.close()
        if "_thread" in self.__dict__:
            self._thread.shutdown()

    def __enter__(self) -> Self:
        """Use it as a context manager to close it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _admissions(self, requests: Iterable[CheckedRequest]) -> Iterator[Admission]:
        """What admission is told, with a name for this call: a lost reply is asked for again."""
        call = new_call_id()
        for place, request in enumerate(requests):
            yield Admission(
                request.job_id,
                request.job_type.name,
                request.queue,
                request.priority,
                request.unique_for_s,
                self._publication(request),
                f"{call}{place}" if request.keyed else OWN_ID,
            )

    def _publication(self, request: CheckedRequest) -> Publication:
        """What admission's script publishes itself, or keeps until the broker has confirmed."""
        if not self._one_redis or not isinstance(self.publisher, RedisPublisher):
            return Publication("", self._unsent(request), "", "", "", 0)
        place = self.publisher.place(request.queue, request.priority)
        key = (request.job_type.name, *place)
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = MessageTemplate(self.app, *key)
        return self.publisher.publication(place, fill(template, request), request.countdown_s)

    def _unsent(self, request: CheckedRequest) -> str:
        message, policy = first_message(self.app, request), request.policy
        kept = None if policy is None else dict(policy)
        return Unsent(message=message, countdown_s=request.countdown_s, policy=kept).encode()

    def _settled(self, request: CheckedRequest, admitted: Admitted) -> JobHandle:
        """The handle, after the message is published where the script did not do it."""
        if not admitted.published and admitted.state is State.ACCEPTED:
            self._publish(request, admitted)
        return JobHandle(self, request.job_id, created=admitted.created)

    def _publish(self, request: CheckedRequest, admitted: Admitted) -> None:
        """Broker and records apart: publish, then note the confirmation."""
        stamp = Stamp(admitted.epoch, policy=request.policy)
        place: dict[str, Any] = {
            "queue": request.queue,
            "priority": request.priority,
            "job_id": request.job_id,
            "stamp": stamp,
        }
        message = first_message(self.app, request)
        if request.countdown_s > 0:
            due_us = admitted.epoch + int(request.countdown_s * 1_000_000)
            self.publisher.publish_later(message, due_us=due_us, **place)
        else:
            self.publisher.publish(message, **place)
        self.records.confirm(request.job_id, admitted.epoch)
