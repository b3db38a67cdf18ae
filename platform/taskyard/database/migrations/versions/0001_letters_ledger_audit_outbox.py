"""Create the tables for dead letters, ledger, audit log and outbox."""

from __future__ import annotations

from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0001"
down_revision = None

_LETTERS = """
CREATE TABLE dead_letter_queue (
    id uuid NOT NULL,
    decided_at timestamptz NOT NULL,
    original_request_id text,
    epoch bigint,
    generation integer,
    version bigint NOT NULL DEFAULT 0,
    schema_version integer NOT NULL DEFAULT 1,
    job_type text,
    queue text,
    priority integer,
    failure_category text NOT NULL CONSTRAINT dead_letter_queue_category CHECK (
        failure_category IN (
            'timeout', 'retry_exhausted', 'circuit_open', 'non_retryable', 'validation_error',
            'poison', 'expired', 'unknown_task', 'unknown_history', 'undecodable', 'rejected',
            'internal_error')),
    failure_reason text NOT NULL,
    failure_code text,
    error_class text,
    traceback text,
    fingerprint text,
    body bytea,
    headers jsonb,
    properties jsonb,
    content_type text,
    content_encoding text,
    args jsonb,
    kwargs jsonb,
    attempts jsonb NOT NULL DEFAULT '[]',
    evidence jsonb NOT NULL DEFAULT '{}',
    worker text,
    reply_to text,
    escalate_to text,
    first_failure_at timestamptz,
    last_failure_at timestamptz,
    replay_eligible boolean NOT NULL,
    status text NOT NULL DEFAULT 'pending' CONSTRAINT dead_letter_queue_status CHECK (
        status IN ('pending', 'manual_review', 'retry_scheduled', 'replayed', 'completed',
                   'cancelled', 'deleted')),
    replayed_at timestamptz,
    replay_outcome text CONSTRAINT dead_letter_queue_outcome CHECK (
        replay_outcome IN ('success', 'failed')),
    mirror_error text,
    raw_envelope bytea,
    mirrored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, decided_at),
    CONSTRAINT dead_letter_queue_whole CHECK (
        mirror_error IS NOT NULL AND raw_envelope IS NOT NULL
        OR (original_request_id IS NOT NULL AND epoch IS NOT NULL AND generation IS NOT NULL
            AND job_type IS NOT NULL AND queue IS NOT NULL AND body IS NOT NULL))
) PARTITION BY RANGE (decided_at);
CREATE INDEX dead_letter_queue_job ON dead_letter_queue (original_request_id, epoch);
CREATE INDEX dead_letter_queue_newest ON dead_letter_queue (decided_at DESC);
CREATE INDEX dead_letter_queue_by_status ON dead_letter_queue (status, decided_at DESC);
CREATE INDEX dead_letter_queue_by_cause ON dead_letter_queue (fingerprint, decided_at DESC);
CREATE TABLE dead_letter_queue_default PARTITION OF dead_letter_queue DEFAULT;
"""

_LEDGER = """
CREATE TABLE job_ledger (
    job_id text NOT NULL,
    epoch bigint NOT NULL,
    version bigint NOT NULL,
    state text NOT NULL,
    generation integer,
    seq integer,
    job_type text,
    queue text,
    priority integer,
    attempts integer,
    admitted_at timestamptz,
    started_at timestamptz,
    ended_at timestamptz,
    updated_at timestamptz NOT NULL,
    code text,
    category text,
    worker text,
    letter_id uuid,
    PRIMARY KEY (job_id, epoch)
) PARTITION BY RANGE (epoch);
CREATE INDEX job_ledger_by_state ON job_ledger (state, updated_at DESC);
CREATE TABLE job_ledger_default PARTITION OF job_ledger DEFAULT;

CREATE TABLE job_events (
    job_id text NOT NULL,
    epoch bigint NOT NULL,
    version bigint NOT NULL,
    event text NOT NULL,
    state text NOT NULL,
    at timestamptz NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (job_id, epoch, version)
) PARTITION BY RANGE (epoch);
CREATE TABLE job_events_default PARTITION OF job_events DEFAULT;

CREATE TABLE lifecycle_rejects (
    id uuid PRIMARY KEY,
    entry bytea NOT NULL,
    mirror_error text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);
"""

_AUDIT = """
CREATE TABLE operator_audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id uuid NOT NULL,
    action_type text NOT NULL CONSTRAINT operator_audit_log_action CHECK (
        action_type IN ('manual_reroute', 'cancel_request', 'abort_request', 'controlled_replay',
                        'controlled_retry', 'force_complete', 'delete_dead_letter')),
    operator_identity text NOT NULL,
    identity_via text NOT NULL,
    on_behalf_of text,
    reason text NOT NULL,
    target_request_id text,
    dead_letter_id uuid,
    outcome text NOT NULL CONSTRAINT operator_audit_log_outcome CHECK (
        outcome IN ('requested', 'applied', 'denied') OR outcome LIKE 'refused: %'),
    detail jsonb NOT NULL DEFAULT '{}',
    performed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX operator_audit_log_target ON operator_audit_log (target_request_id, performed_at DESC);
CREATE INDEX operator_audit_log_letter ON operator_audit_log (dead_letter_id);
CREATE INDEX operator_audit_log_request ON operator_audit_log (request_id);
CREATE INDEX operator_audit_log_time ON operator_audit_log (performed_at DESC);

CREATE FUNCTION operator_audit_log_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'operator_audit_log is append-only: % is refused for everyone', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER operator_audit_log_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON operator_audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION operator_audit_log_append_only();
ALTER TABLE operator_audit_log ENABLE ALWAYS TRIGGER operator_audit_log_append_only;
"""

_OUTBOX = """
CREATE TABLE outbox (
    id uuid PRIMARY KEY,
    position bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    job_id text NOT NULL,
    epoch bigint NOT NULL,
    payload jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    not_before timestamptz,
    done_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    last_error text
);
CREATE INDEX outbox_open ON outbox (position) WHERE done_at IS NULL;
CREATE INDEX outbox_open_by_job ON outbox (job_id, position) WHERE done_at IS NULL;
"""

_TABLES = (
    "outbox",
    "operator_audit_log",
    "lifecycle_rejects",
    "job_events",
    "job_ledger",
    "dead_letter_queue",
)


def upgrade() -> None:
    """Create all tables, with their indexes and triggers."""
    for statements in (_LETTERS, _LEDGER, _AUDIT, _OUTBOX):
        # The driver's own cursor: `op.execute` would take colons and percent signs for parameters.
        op.get_bind().exec_driver_sql(statements.replace("%", "%%"))


def downgrade() -> None:
    """Drop all tables, the audit log too."""
    for table in _TABLES:
        op.drop_table(table)
    op.execute("DROP FUNCTION operator_audit_log_append_only()")
