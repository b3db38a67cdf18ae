"""What a process needs to carry out operator tasks: Postgres, the key ring, the job types."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from taskyard import database
from taskyard.access import Action
from taskyard.access.operator_task_table import REPLAY_TASK
from taskyard.access.verify_credential import Verifier
from taskyard.control import Edit, KnownTypes, replay, wait_outcome
from taskyard.control.carry_out_signed_message import OperatorMessage, Signed, accept
from taskyard.control.operator_verb import VerbCall, audited
from taskyard.errors import InvalidPayload
from taskyard.jobs import Catalogue, JobContext
from taskyard.jobs.handler_registry import registry
from taskyard.jobs.types import describe
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.store import connect

__all__ = ["MessageDesk", "ReplayArguments"]


class ReplayArguments(BaseModel):
    """The arguments of a `taskyard.ops.replay` message, beside its credential.

    `payload` is the only argument of a job; for a task of an existing app `args` and `kwargs` are
    all its arguments. Without any of the three the job keeps its own arguments.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # A part of an id may name another letter when the message is carried out.
    letter_id: uuid.UUID
    reason: str | None = None
    queue: str | None = None
    payload: Any = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    force: bool = False
    on_behalf_of: str | None = Field(
        default=None,
        validation_alias=AliasChoices("on_behalf_of", "operator_identity", "requestedBy"),
    )

    def edit(self) -> Edit | None:
        """Return the new arguments, None if the job keeps its own; raises `InvalidPayload`."""
        if "payload" in self.model_fields_set:
            if self.args is not None or self.kwargs is not None:
                raise InvalidPayload(
                    "'payload' is the only argument of a job, 'args' and 'kwargs' are all "
                    "arguments of a task; give either 'payload' or these"
                )
            return Edit(args=[self.payload], payload_only=True)
        if self.args is None and self.kwargs is None:
            return None
        return Edit(args=self.args or [], kwargs=self.kwargs or {})


class MessageDesk:
    """Carries out operators' messages in one process; connects at the first message."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine = database.engine(settings.need_database_url())
        self._records = Records(connect(settings.need_redis_url()), settings)
        self._verifier = Verifier(settings)
        self._known = KnownTypes(registry.under(Catalogue.of(settings)), registry)

    def replay(self, arguments: Mapping[str, Any], context: JobContext) -> dict[str, Any]:
        """Replay a letter as the message requests.

        Raises what `accept` and `control.replay` raise.
        """
        message = OperatorMessage(REPLAY_TASK, context.job_id, arguments, context.credential)
        signed = accept(self._engine, self._verifier, message)
        signed.raise_refusal()
        wanted, edit = self._wanted(arguments, signed)
        asked = replay(
            self._engine,
            wanted.letter_id,
            identity=signed.identity,
            reason=wanted.reason,
            queue=wanted.queue,
            payload=edit,
            force=wanted.force,
            on_behalf_of=wanted.on_behalf_of,
            require_reason=self._settings.require_reason,
            known=self._known,
            max_unpacked_bytes=self._settings.max_unpacked_bytes,
            message=signed.ref,
            records=self._records,
        )
        return {
            "request_id": str(asked.request_id),
            "letter_id": str(asked.letter_id),
            "job_id": asked.job_id,
            "generation": asked.generation,
            "outcome": wait_outcome(self._engine, asked.request_id),
        }

    def _wanted(
        self, arguments: Mapping[str, Any], signed: Signed
    ) -> tuple[ReplayArguments, Edit | None]:
        """Return the arguments and the edit; raises `InvalidPayload`, which is audited."""
        reason = arguments.get("reason")
        call = VerbCall(
            Action.CONTROLLED_REPLAY,
            signed.identity,
            reason if isinstance(reason, str) else None,
            message=signed.ref,
        )
        with audited(self._engine, call):
            try:
                wanted = ReplayArguments.model_validate(arguments)
            except ValidationError as error:
                raise InvalidPayload(describe(REPLAY_TASK, error)) from error
            return wanted, wanted.edit()
