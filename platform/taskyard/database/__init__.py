"""Postgres: the engine, the tables, their migrations and their partitions."""

from taskyard.database.connect import engine, opened
from taskyard.database.migrate import SchemaStatus, check, encoding_fault, migrate
from taskyard.database.partitions import create_partitions, drop_partitions_before
from taskyard.database.postgres_grants import RoleKind, RoleStatus, role_status, roles_sql

__all__ = [
    "RoleKind",
    "RoleStatus",
    "SchemaStatus",
    "check",
    "create_partitions",
    "drop_partitions_before",
    "encoding_fault",
    "engine",
    "migrate",
    "opened",
    "role_status",
    "roles_sql",
]
