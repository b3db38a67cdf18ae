"""Celery's result backend on the job records: states come from the record.

Results are under Celery's own key. The script that decides a job's success also writes its result,
in the same step, so the backend does not store that result again. Groups, chords and custom states
work as in Celery.
"""

from __future__ import annotations

import json
from typing import Any, Final

from celery import states
from celery.backends.redis import RedisBackend

from taskyard.address import redis_address
from taskyard.jobs.states import CELERY_NAMES, State
from taskyard.records import Keys
from taskyard.store import make_pool
from taskyard.wire import redact_url
from taskyard.wire.letter_envelope import letter_id

__all__ = ["DECIDED", "RecordBackend"]

# The runner sets it on the request once the record has the decision.
DECIDED: Final = "taskyard_decided"
_OF_THE_RECORD: Final = frozenset({states.SUCCESS, states.RETRY, states.REVOKED})
_OF_THE_ADDRESS: Final = ("host", "port", "db", "username", "password")
_FIELDS: Final = ("state", "epoch", "generation", "cause", "worker")


class RecordBackend(RedisBackend):  # type: ignore[misc]
    """A Celery result backend that reads states from the job records.

    Its URL may name Sentinels or a socket.
    """

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        """Parse the backend's URL and keep all options.

        Celery's own code drops options that it does not know.
        """
        address = redis_address(url)
        kept = {name: value for name, value in defaults.items() if name not in _OF_THE_ADDRESS}
        return {**kept, **address.options, **(address.tls or {})}

    def _get_pool(self, **params: Any) -> Any:
        return make_pool(redis_address(self.url), params)

    def as_uri(self, include_password: bool = False) -> str:
        """Return the URL without its password, for people.

        Celery's own code fails with several hosts.
        """
        return str(self.url) if include_password else redact_url(self.url)

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Store a result or state, unless the job's record has it already.

        The record already has a decided success, retry, or end by an operator.
        """
        if getattr(request, DECIDED, None) and state in _OF_THE_RECORD:
            return result
        return super().store_result(
            task_id, result, state, traceback=traceback, request=request, **kwargs
        )

    def mark_as_failure(
        self, task_id: str, exc: Any, *args: Any, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store a failure, unless the job's record says success.

        Celery may fail while it reports a success; the success stays.
        """
        if getattr(request, DECIDED, None):
            return None
        return super().mark_as_failure(task_id, exc, *args, request=request, **kwargs)

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        meta = super()._get_task_meta_for(task_id)
        if meta.get("status") != states.PENDING:
            return dict(meta)
        fields = self.client.hmget(Keys(self._namespace()).record(task_id), _FIELDS)
        if fields[0] is None:
            return dict(meta)
        if fields[0].decode() == State.COMPLETED:
            # The job ended between the two reads; what is still missing now has expired.
            meta = super()._get_task_meta_for(task_id)
            if meta.get("status") != states.PENDING:
                return dict(meta)
        return self._from_record(task_id, [None if f is None else f.decode() for f in fields])

    def _namespace(self) -> str:
        options = self.app.conf.result_backend_transport_options or {}
        prefix: str = options.get("global_keyprefix") or ""
        return prefix.removesuffix(":") or "taskyard"

    def _from_record(self, task_id: str, fields: list[str | None]) -> dict[str, Any]:
        state, epoch, generation, cause, worker = fields
        name = CELERY_NAMES[State(state or State.NONE)]
        meta: dict[str, Any] = {"status": name, "result": None, "task_id": task_id}
        if state == State.RUNNING:
            meta["result"] = {"hostname": worker}
        elif state == State.DEAD_LETTERED:
            facts = json.loads(cause or "{}")
            letter = letter_id(task_id, int(epoch or 0), int(generation or 0))
            detail = [letter, facts.get("code", ""), facts.get("message", "")]
            meta["result"] = self._exception("DeadLettered", detail)
            meta["traceback"] = facts.get("traceback")
        elif name in (states.FAILURE, states.REVOKED):
            meta["result"] = self._exception("JobFailed", [task_id, state or "", ""])
        return meta

    def _exception(self, name: str, arguments: list[str]) -> Any:
        raw = {"exc_type": name, "exc_message": arguments, "exc_module": "taskyard.errors"}
        return self.exception_to_python(raw)
