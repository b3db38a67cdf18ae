"""Alembic's folder: the schema, version by version."""
