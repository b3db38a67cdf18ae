"""The settings object: every field with its unit, default and special value."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from taskyard.errors import MissingSetting, UnknownPriority, UnknownQueue
from taskyard.settings.queue_names import queue_name_at_broker

__all__ = ["DEFAULT_QUEUES", "LEAST_AUDIT_DAYS", "QueueSettings", "Settings"]

LEAST_AUDIT_DAYS = 30
"""Younger audit rows stay in Postgres: the owner's function does not remove them."""
_OPS = "ops"
_NAME = r"^[a-zA-Z][a-zA-Z0-9_-]{0,62}$"


class QueueSettings(BaseModel):
    """One queue: priorities run from 1 to `priorities`, and the highest is the most urgent.

    `sla_s` is the promised time in seconds from admission to start; None promises no time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    priorities: int = Field(default=5, ge=1, le=5)
    sla_s: float | None = Field(default=None, gt=0)

    @property
    def default_priority(self) -> int:
        """The middle one."""
        return (self.priorities + 1) // 2


DEFAULT_QUEUES = {
    "plan": QueueSettings(sla_s=12),
    "exec": QueueSettings(),
    "locator": QueueSettings(priorities=3, sla_s=4),
    "ops": QueueSettings(),
}


class Settings(BaseModel):
    """Every setting.

    Durations end in `_s` (seconds), sizes in `_bytes`. A URL is None if this process does not need
    the server; the `need_*` methods raise if the URL is missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: str = Field(default="taskyard", pattern=_NAME)
    broker_url: str | None = None
    redis_url: str | None = None
    database_url: str | None = None
    home: Path = Path(".taskyard")
    builtin_jobs: bool = False
    job_types: tuple[Path, ...] = ()
    queues: dict[str, QueueSettings] = Field(default_factory=lambda: dict(DEFAULT_QUEUES))

    lease_s: float = Field(default=30, ge=1, le=3600)
    visibility_timeout_s: float = Field(default=600, ge=1)
    result_ttl_s: int = Field(default=3600, ge=1)
    dedupe_window_s: int = Field(default=21600, ge=1)
    unique_for_s: int = Field(default=86400, ge=1)
    death_limit: int = Field(default=3, ge=1)
    delivery_limit: int = Field(default=10, ge=1)
    max_payload_bytes: int = Field(default=262144, ge=1)
    max_result_bytes: int = Field(default=262144, ge=1)
    max_unpacked_bytes: int = Field(default=16_777_216, ge=1)
    lifecycle_max_events: int = Field(default=1_000_000, ge=100)
    letters_kept: int = Field(default=10_000, ge=0)
    publish_timeout_s: float = Field(default=5, gt=0)
    replicas: int = Field(default=0, ge=0)
    rabbitmq_queue_type: Literal["auto", "classic", "quorum"] = "auto"
    letter_retention_days: int = Field(default=90, ge=1)
    ledger_retention_days: int = Field(default=30, ge=1)
    outbox_retention_days: int = Field(default=30, ge=1)
    unverified_retention_days: int = Field(default=90, ge=1)
    audit_head_file: Path | None = None
    audit_retention_days: int = Field(default=0, ge=0)
    audit_archive_folder: Path | None = None
    audit_archive_retention_days: int = Field(default=0, ge=0)

    token: SecretStr | None = None
    trust_local: bool = False
    public_keys: Path | None = None
    signing_key: Path | None = None
    credential_ttl_s: int = Field(default=600, ge=1, le=3600)
    control_commands: Literal["any", "signed"] = "any"
    require_reason: Literal["compatible", "strict"] = "compatible"

    @field_validator("queues", mode="before")
    @classmethod
    def _keep_needed(cls, queues: object, info: ValidationInfo) -> object:
        """Drop the built-in jobs' queues if others are configured, unless the jobs are enabled."""
        kept = DEFAULT_QUEUES if info.data.get("builtin_jobs") else {_OPS: DEFAULT_QUEUES[_OPS]}
        return {**kept, **queues} if isinstance(queues, dict) else queues

    @field_validator("broker_url", "redis_url", "database_url")
    @classmethod
    def _has_scheme(cls, url: str | None) -> str | None:
        if url is not None and "://" not in url:
            raise ValueError("expected a URL such as redis://host:6379/0 or postgresql://host/name")
        return url

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.dedupe_window_s <= 2 * self.visibility_timeout_s:
            msg = (
                f"dedupe_window_s ({self.dedupe_window_s}) must exceed twice visibility_timeout_s "
                f"({self.visibility_timeout_s:g}): a message redelivered after its record has "
                f"expired would run again. Set it above {2 * self.visibility_timeout_s:g}"
            )
            raise ValueError(msg)
        self._check_audit()
        return self

    def _check_audit(self) -> None:
        days, kept = self.audit_retention_days, self.audit_archive_retention_days
        if days and days < LEAST_AUDIT_DAYS:
            raise ValueError(
                f"audit_retention_days ({days}) must be 0, which keeps the audit log in Postgres "
                f"for ever, or at least {LEAST_AUDIT_DAYS}"
            )
        if days and self.audit_archive_folder is None:
            raise ValueError(
                f"audit_retention_days ({days}) needs audit_archive_folder: rows of the audit log "
                "are deleted from Postgres only after they are written to an archive there. Set "
                "TASKYARD_AUDIT_ARCHIVE_FOLDER, or audit_retention_days to 0"
            )
        if kept and kept <= days:
            raise ValueError(
                f"audit_archive_retention_days ({kept}) must exceed audit_retention_days ({days}), "
                "or an archive would be dropped as soon as it is written; 0 keeps it for ever"
            )

    def need_broker_url(self) -> str:
        """Return the broker's URL; raises `MissingSetting`."""
        return self._need("broker_url", "the broker that carries the jobs")

    def need_redis_url(self) -> str:
        """Return the URL of the Redis with the records; raises `MissingSetting`."""
        return self._need("redis_url", "the Redis that holds the job records")

    def need_database_url(self) -> str:
        """Return the URL of Postgres; raises `MissingSetting`."""
        return self._need("database_url", "the Postgres that holds letters, ledger and audit")

    def _need(self, field: str, purpose: str) -> str:
        value: str | None = getattr(self, field)
        if value is None:
            raise MissingSetting(
                f"TASKYARD_{field.upper()}",
                purpose,
                "Set it, or start everything on this machine with: taskyard up",
            )
        return value

    def queue(self, name: str) -> QueueSettings:
        """Return the settings of a queue; raises `UnknownQueue`."""
        try:
            return self.queues[name]
        except KeyError:
            replaced = (
                f"Queues of your own replace the default ones, {name} among them. "
                if name in DEFAULT_QUEUES
                else ""
            )
            raise UnknownQueue(
                f"there is no queue {name!r}. Known: {', '.join(sorted(self.queues))}. {replaced}"
                "Add one under [queues] in taskyard.toml; for settings created in code, as a "
                "test's Yard has, use Settings(queues=...)."
            ) from None

    def check_priority(self, queue: str, priority: object) -> int:
        """Return `priority` if the queue has it; raises `UnknownPriority`."""
        top = self.queue(queue).priorities
        if isinstance(priority, bool) or not isinstance(priority, int) or not 1 <= priority <= top:
            raise UnknownPriority(
                f"queue {queue!r} has priorities 1 to {top} ({top} is the most urgent), "
                f"got {priority!r}"
            )
        return priority

    def broker_name(self, queue: str) -> str:
        """Return the queue's name at the broker: bare in the default namespace, else prefixed."""
        return queue_name_at_broker(self.namespace, queue)
