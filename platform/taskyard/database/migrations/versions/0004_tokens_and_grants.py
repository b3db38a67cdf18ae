"""Create the tables for operators' tokens, and for rights of people who sign in elsewhere."""

from __future__ import annotations

from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0004"
down_revision = "0003"

# Queues and domains: NULL means no limit, an empty array means no queue at all.
_TABLES = """
CREATE TABLE operator_tokens (
    id text PRIMARY KEY CONSTRAINT operator_tokens_id CHECK (id ~ '^[0-9a-f]{12}$'),
    subject text NOT NULL,
    role text NOT NULL CONSTRAINT operator_tokens_role CHECK (
        role IN ('viewer', 'operator', 'admin')),
    queues text[],
    domains text[],
    granted text[] NOT NULL DEFAULT '{}',
    secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
    lifetime interval NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    expires_at timestamptz NOT NULL,
    previous_sha256 bytea CHECK (octet_length(previous_sha256) = 32),
    previous_until timestamptz,
    revoked_at timestamptz,
    revoked_by text,
    last_used_at timestamptz
);
CREATE INDEX operator_tokens_by_subject ON operator_tokens (subject, created_at DESC);

CREATE TABLE operator_grants (
    subject text PRIMARY KEY,
    role text NOT NULL CONSTRAINT operator_grants_role CHECK (
        role IN ('viewer', 'operator', 'admin')),
    queues text[],
    domains text[],
    granted text[] NOT NULL DEFAULT '{}',
    granted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    granted_by text NOT NULL
);
"""


def upgrade() -> None:
    """Create the tables."""
    op.get_bind().exec_driver_sql(_TABLES)


def downgrade() -> None:
    """Drop the tables, and with them every token and grant."""
    op.drop_table("operator_grants")
    op.drop_table("operator_tokens")
