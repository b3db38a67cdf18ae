"""Every table for SQLAlchemy Core; the migrations define constraints, indexes and partitions.

A test compares these columns with those of a migrated database.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

__all__ = [
    "AUDIT",
    "EVENTS",
    "GATE",
    "GRANTS",
    "LEDGER",
    "LETTERS",
    "METADATA",
    "NONCES",
    "OUTBOX",
    "REJECTS",
    "SEALS",
    "SWITCHES",
    "TOKENS",
    "UNVERIFIED",
]

METADATA: Final = MetaData()
_TIME: Final = DateTime(timezone=True)
# None in Python becomes NULL in the table, never the JSON value null.
_JSON: Final = JSONB(none_as_null=True)

LETTERS: Final = Table(
    "dead_letter_queue",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("decided_at", _TIME, primary_key=True),
    Column("original_request_id", Text),
    Column("epoch", BigInteger),
    Column("generation", Integer),
    Column("version", BigInteger),
    Column("schema_version", Integer),
    Column("job_type", Text),
    Column("domain", Text),
    Column("queue", Text),
    Column("priority", Integer),
    Column("failure_category", Text),
    Column("failure_reason", Text),
    Column("failure_code", Text),
    Column("error_class", Text),
    Column("traceback", Text),
    Column("fingerprint", Text),
    Column("body", LargeBinary),
    Column("headers", _JSON),
    Column("properties", _JSON),
    Column("content_type", Text),
    Column("content_encoding", Text),
    Column("args", _JSON),
    Column("kwargs", _JSON),
    Column("attempts", _JSON),
    Column("evidence", _JSON),
    Column("worker", Text),
    Column("reply_to", Text),
    Column("escalate_to", Text),
    Column("first_failure_at", _TIME),
    Column("last_failure_at", _TIME),
    Column("replay_eligible", Boolean),
    Column("status", Text),
    Column("replayed_at", _TIME),
    Column("replay_outcome", Text),
    Column("mirror_error", Text),
    Column("raw_envelope", LargeBinary),
    Column("mirrored_at", _TIME),
)

LEDGER: Final = Table(
    "job_ledger",
    METADATA,
    Column("job_id", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("version", BigInteger),
    Column("state", Text),
    Column("generation", Integer),
    Column("seq", Integer),
    Column("job_type", Text),
    Column("domain", Text),
    Column("queue", Text),
    Column("priority", Integer),
    Column("attempts", Integer),
    Column("admitted_at", _TIME),
    Column("started_at", _TIME),
    Column("ended_at", _TIME),
    Column("updated_at", _TIME),
    Column("code", Text),
    Column("category", Text),
    Column("worker", Text),
    Column("letter_id", Uuid),
)

EVENTS: Final = Table(
    "job_events",
    METADATA,
    Column("job_id", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("event", Text),
    Column("state", Text),
    Column("at", _TIME),
    Column("detail", _JSON),
)

AUDIT: Final = Table(
    "operator_audit_log",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("request_id", Uuid),
    Column("action_type", Text),
    Column("operator_identity", Text),
    Column("identity_via", Text),
    Column("on_behalf_of", Text),
    Column("reason", Text),
    Column("target_request_id", Text),
    Column("dead_letter_id", Uuid),
    Column("outcome", Text),
    Column("detail", _JSON),
    Column("performed_at", _TIME),
    Column("transaction_id", BigInteger),
)

SEALS: Final = Table(
    "audit_seals",
    METADATA,
    Column("seq", BigInteger, primary_key=True),
    Column("form", Integer),
    Column("cluster", Text),
    Column("sealed_at", _TIME),
    Column("closed_below", BigInteger),
    Column("next_transaction", BigInteger),
    Column("row_ids", ARRAY(BigInteger)),
    Column("row_hashes", LargeBinary),
    Column("last_id", BigInteger),
    Column("archived_through", BigInteger),
    Column("prev_hash", LargeBinary),
    Column("hash", LargeBinary),
)

OUTBOX: Final = Table(
    "outbox",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("position", BigInteger),
    Column("kind", Text),
    Column("job_id", Text),
    Column("epoch", BigInteger),
    Column("payload", _JSON),
    Column("created_at", _TIME),
    Column("not_before", _TIME),
    Column("done_at", _TIME),
    Column("attempts", Integer),
    Column("last_error", Text),
    Column("bulk", Boolean),
)

GATE: Final = Table(
    "restore_gate",
    METADATA,
    Column("namespace", Text, primary_key=True),
    Column("token", Uuid),
    Column("beat", BigInteger),
    Column("beaten_at", _TIME),
)

SWITCHES: Final = Table(
    "switches",
    METADATA,
    Column("field", Text, primary_key=True),
    Column("mode", Text),
    Column("version", BigInteger),
    Column("since", _TIME),
    Column("until_at", _TIME),
    Column("operator", Text),
    Column("via", Text),
    Column("reason", Text),
    Column("request_id", Text),
    Column("unanswered", ARRAY(Uuid)),
)

NONCES: Final = Table(
    "operator_nonces",
    METADATA,
    Column("nonce", Text, primary_key=True),
    Column("message_id", Text),
    Column("expires_at", _TIME),
)

UNVERIFIED: Final = Table(
    "unverified_denials",
    METADATA,
    Column("minute", _TIME, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("why", Text, primary_key=True),
    Column("count", BigInteger),
)

REJECTS: Final = Table(
    "lifecycle_rejects",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("entry", LargeBinary),
    Column("mirror_error", Text),
    Column("received_at", _TIME),
)

TOKENS: Final = Table(
    "operator_tokens",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("subject", Text),
    Column("role", Text),
    Column("queues", ARRAY(Text)),
    Column("domains", ARRAY(Text)),
    Column("granted", ARRAY(Text)),
    Column("secret_sha256", LargeBinary),
    Column("lifetime", Interval),
    Column("created_at", _TIME),
    Column("created_by", Text),
    Column("expires_at", _TIME),
    Column("previous_sha256", LargeBinary),
    Column("previous_until", _TIME),
    Column("revoked_at", _TIME),
    Column("revoked_by", Text),
    Column("last_used_at", _TIME),
)

GRANTS: Final = Table(
    "operator_grants",
    METADATA,
    Column("subject", Text, primary_key=True),
    Column("role", Text),
    Column("queues", ARRAY(Text)),
    Column("domains", ARRAY(Text)),
    Column("granted", ARRAY(Text)),
    Column("granted_at", _TIME),
    Column("granted_by", Text),
)
