"""Create the table for the seals of the audit log: a chain of hashes over its rows."""

from __future__ import annotations

from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0005"
down_revision = "0004"

# The default is evaluated once for existing rows: they count as written by the migration.
_TRANSACTION = """
ALTER TABLE operator_audit_log
    ADD COLUMN transaction_id bigint NOT NULL
    DEFAULT (pg_current_xact_id()::text::bigint);
CREATE INDEX operator_audit_log_transaction ON operator_audit_log (transaction_id);
"""

_SEALS = """
CREATE TABLE audit_seals (
    seq bigint PRIMARY KEY,
    form integer NOT NULL,
    cluster text NOT NULL,
    sealed_at timestamptz NOT NULL,
    closed_below bigint,
    next_transaction bigint NOT NULL,
    row_ids bigint[] NOT NULL,
    row_hashes bytea NOT NULL,
    last_id bigint NOT NULL,
    archived_through bigint,
    prev_hash bytea NOT NULL,
    hash bytea NOT NULL
);
CREATE INDEX audit_seals_transaction ON audit_seals (next_transaction);
CREATE FUNCTION audit_seals_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_seals is append-only: % is refused for everyone', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_seals_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_seals
    FOR EACH STATEMENT EXECUTE FUNCTION audit_seals_append_only();
ALTER TABLE audit_seals ENABLE ALWAYS TRIGGER audit_seals_append_only;
"""


def upgrade() -> None:
    """Store each row's transaction; create the chain, which the relay extends."""
    for statements in (_TRANSACTION, _SEALS):
        op.get_bind().exec_driver_sql(statements.replace("%", "%%"))


def downgrade() -> None:
    """Drop the chain; the audit log stays."""
    op.drop_table("audit_seals")
    op.execute("DROP FUNCTION audit_seals_append_only()")
    op.drop_column("operator_audit_log", "transaction_id")
