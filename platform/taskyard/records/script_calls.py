"""Call the records' scripts: one, or those of many jobs in one round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.exceptions import RedisError, ResponseError

from taskyard.errors import Refused
from taskyard.records.job_keys import Keys
from taskyard.records.script_replies import Replayed
from taskyard.store import Argument, Script, is_of_replica, named

__all__ = ["ReplayCall", "ScriptCall", "ScriptCalls"]

# KEYS of every script, in their order; only `begin` has the fifth.
_TYPES: Final = ("hash", "stream", "hash", "string", "hash")


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """One call of a script: its name, the job, and the arguments after the job's id.

    Without `keys` they are those that every script has for the job.
    """

    name: str
    job_id: str
    arguments: Sequence[Argument]
    keys: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class ReplayCall:
    """Open the generation after `generation`, once for each request."""

    job_id: str
    epoch: int
    generation: int
    request_id: str
    job_type: str
    queue: str
    priority: int | None

    def script(self) -> ScriptCall:
        """Return the call of the script."""
        arguments: list[Argument] = [
            self.epoch,
            self.generation,
            self.request_id,
            self.job_type,
            self.queue,
            "" if self.priority is None else self.priority,
        ]
        return ScriptCall("replay", self.job_id, arguments)

    def parse(self, raw: Sequence[Any]) -> Replayed | Refused:
        """Parse the script's reply."""
        if raw[0] == b"refused":
            return Refused(f"job {self.job_id} was not replayed: {raw[1].decode()}")
        return Replayed(int(raw[1]), 0, raw[2] == b"1", int(raw[3]))


class ScriptCalls:
    """The scripts of one namespace by name; every script has the same keys for a job."""

    def __init__(self, client: redis.Redis, keys: Keys, scripts: Mapping[str, Script]) -> None:
        self._client, self._keys, self._scripts = client, keys, scripts

    def one(self, call: ScriptCall) -> Any:
        """Return the script's answer; raises redis-py's errors."""
        try:
            return self._scripts[call.name](
                self._client, self._of(call), [call.job_id, *call.arguments]
            )
        except ResponseError as error:
            raise self._named(error, call) from None

    def each(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """Return the answers in the calls' order, after one round trip for all of them.

        An error stands for each call that failed. Raises redis-py's error if the server is lost:
        then it is unknown which calls were carried out.
        """
        used = sorted({call.name for call in calls})
        with self._client.pipeline(transaction=False) as pipe:
            for name in used:
                self._scripts[name].queue_load(pipe)
            for call in calls:
                arguments = [call.job_id, *call.arguments]
                self._scripts[call.name].queue(pipe, self._of(call), arguments)
            answers = pipe.execute(raise_on_error=False)[len(used) :]
        if any(isinstance(each, ResponseError) and is_of_replica(each) for each in answers):
            # The next call finds the primary again.
            self._client.connection_pool.disconnect(inuse_connections=False)
        return [
            self._named(answer, call) if isinstance(answer, ResponseError) else answer
            for call, answer in zip(calls, answers, strict=True)
        ]

    def all(self, calls: Sequence[ScriptCall]) -> None:
        """Call as `each` does, and raise the first error that stands for a call."""
        for answer in self.each(calls):
            if isinstance(answer, RedisError):
                raise answer

    def _of(self, call: ScriptCall) -> Sequence[str]:
        return self._keys.script_keys(call.job_id) if call.keys is None else call.keys

    def _named(self, error: ResponseError, call: ScriptCall) -> ResponseError:
        return named(self._client, error, dict(zip(self._of(call), _TYPES, strict=False)))
