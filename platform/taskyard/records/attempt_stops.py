"""Requests to stop an attempt in its worker, and the worker's answers; lists and keys in Redis.

A request gives no right: the worker stops only the attempt of a job whose record says that an
operator has ended it. Alone because relay and worker share it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, Self

import redis

from taskyard.records.live_workers import Fleet, lives

__all__ = ["AttemptStops", "Stop", "StopAnswer"]

_KEPT_S: Final = 60
"""How long a request waits for its worker, and an answer for the relay."""
_WAKE: Final = b""


class StopAnswer(StrEnum):
    """What a worker answers to a request."""

    STOPPED = "stopped"
    NOT_RUNNING = "not running"
    UNSUPPORTED = "unsupported"
    """The pool cannot stop an attempt (threads, solo)."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the attempt with `token` of a job, which `request_id` has ended."""

    job_id: str
    token: int
    request_id: str

    @classmethod
    def read(cls, raw: bytes) -> Self | None:
        """Return the request that an entry of the list describes; None if it describes none."""
        try:
            document: dict[str, Any] = json.loads(raw)
            return cls(str(document["job_id"]), int(document["token"]), str(document["request_id"]))
        except (ValueError, KeyError, TypeError):
            return None


class AttemptStops:
    """The requests and answers of one namespace; every method raises redis-py's errors."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._fleet = Fleet(client, namespace)

    def _requests(self, worker: str) -> str:
        return f"{self._namespace}:stops:{worker}"

    def _answer(self, request_id: str) -> str:
        return f"{self._namespace}:stopped:{request_id}"

    def ask(self, worker: str, stop: Stop) -> None:
        """Ask a worker to stop an attempt; a repeated request changes nothing."""
        self._push(worker, json.dumps(asdict(stop)).encode())

    def wake(self, worker: str) -> None:
        """End the `wait` of a worker at once."""
        self._push(worker, _WAKE)

    def _push(self, worker: str, entry: bytes) -> None:
        key = self._requests(worker)
        with self._client.pipeline(transaction=True) as pipe:
            pipe.rpush(key, entry)
            pipe.expire(key, _KEPT_S)
            pipe.execute()

    def wait(self, worker: str, longest_s: float) -> Stop | None:
        """Return the next request to a worker, after at most `longest_s`; None if there is none."""
        found: Any = self._client.blpop([self._requests(worker)], timeout=longest_s)
        return None if found is None else Stop.read(found[1])

    def answer(self, request_id: str, answer: StopAnswer) -> None:
        """Write a worker's answer to a request."""
        self._client.set(self._answer(request_id), answer.value, ex=_KEPT_S)

    def answer_to(self, request_id: str) -> StopAnswer | None:
        """Return the worker's answer to a request; None if there is none yet."""
        raw: Any = self._client.get(self._answer(request_id))
        known = {answer.value.encode(): answer for answer in StopAnswer}
        return None if raw is None else known.get(raw)

    def worker_lives(self, worker: str, began_us: int) -> bool:
        """Return whether the worker that began an attempt at that time still lives."""
        now_us, members = self._fleet.read()
        return lives(members, worker, began_us, now_us)
